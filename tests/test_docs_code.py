"""Every code block of the README and the guide runs, and prints what the page shows. harness/code_blocks.py says how."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.code_blocks import OTHER_LANGUAGES, PAGES, ROOT, Block, blocks_of, command_of, mistake_in
from tests.harness.own_sandbox import own_sandbox
from tests.harness.page_runner import PageRunner
from tests.harness.programs import needs
from tests.harness.waiting import until
from tests.harness.world import Stack, World

pytestmark = pytest.mark.slow

KINDS = {"sh", "python", "text", "json", "toml", "yaml", *OTHER_LANGUAGES}
README = ROOT / "README.md"
PAGES_WITH_BLOCKS = {page.relative_to(ROOT).as_posix(): page for page in PAGES if blocks_of(page)}
IN_OTHER_LANGUAGES = sorted(
    {
        (name, block.kind)
        for name, page in PAGES_WITH_BLOCKS.items()
        for block in blocks_of(page)
        if block.kind in OTHER_LANGUAGES
    }
)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Path]]:
    """Yield a fresh sandbox that runs as after `make up ARGS=--ephemeral`, but on free ports, and its output."""
    folder = tmp_path_factory.mktemp("up")
    with own_sandbox(folder, "--ephemeral") as (_, stack):
        yield stack, folder / "up.log"


@pytest.fixture
def runner_world(up: tuple[Stack, Path]) -> Iterator[World]:
    """Yield a merchant for one page, like the demo merchant of a sandbox that was just started."""
    with World.create(up[0], opening_balance="1000000.00") as world:
        yield world


@needs("curl")
@pytest.mark.parametrize("name", PAGES_WITH_BLOCKS)
def test_every_block_runs_and_prints_what_the_page_shows(runner_world: World, tmp_path: Path, name: str) -> None:
    blocks = blocks_of(PAGES_WITH_BLOCKS[name])
    follows_other = False
    with PageRunner(runner_world, tmp_path, blocks) as runner:
        for block in blocks:
            # Blocks in other languages, and the output after them, have their own test, which is skipped without the language.
            follows_other = block.kind in OTHER_LANGUAGES or (follows_other and block.kind == "text")
            if not follows_other:
                runner.run(block)
        assert PAGES_WITH_BLOCKS[name] != README or runner.leftovers() == set(), "the README must leave no files behind"


@pytest.mark.parametrize(("name", "language"), IN_OTHER_LANGUAGES)
def test_blocks_in_other_languages_run(runner_world: World, tmp_path: Path, name: str, language: str) -> None:
    if command_of(language) is None:
        pytest.skip(f"{name}: {language} is not installed")
    blocks = blocks_of(PAGES_WITH_BLOCKS[name])
    with PageRunner(runner_world, tmp_path, blocks) as runner:
        runner.write_files()
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            if block.kind == language:
                assert (mistake := mistake_in(block)) is None, f"{block.place}: {mistake}"
                if block.not_run is None:
                    runner.run_other(block)
                    if following is not None and following.kind == "text":
                        runner.run(following)


@pytest.mark.parametrize("name", PAGES_WITH_BLOCKS)
def test_every_block_names_its_language_and_a_reason_if_it_is_not_run(name: str) -> None:
    """No block can escape from the tests above by mistake."""
    for block in blocks_of(PAGES_WITH_BLOCKS[name]):
        assert block.kind in KINDS or block.not_run, f"{block.place}: name a language, or say why it is not run"
        assert block.not_run is None or len(block.not_run) > 8, f"{block.place}: say why it is not run"


def test_the_parser_finds_every_fence() -> None:
    for page in PAGES:
        fences = sum(line.strip().startswith(("```", "~~~")) for line in page.read_text().splitlines())
        assert fences == 2 * len(blocks_of(page)), page


def test_most_blocks_of_the_readme_run() -> None:
    blocks = [block for block in blocks_of(README) if block.kind in ("sh", "python")]
    assert sum(block.not_run is None for block in blocks) > len(blocks) / 2


def test_the_banner_names_the_guide_and_the_reference(up: tuple[Stack, Path]) -> None:
    stack, output = up
    until(lambda: f"{stack.api_url}/docs/guide/" in output.read_text() and f"{stack.api_url}/docs\n" in output.read_text())


@pytest.fixture
def page(tmp_path: Path, runner_world: World) -> Iterator[PageRunner]:
    """Yield a runner for the blocks of an imaginary page."""
    with PageRunner(runner_world, tmp_path, [_block("sh", "true", port="9000")]) as runner:
        yield runner


def _block(kind: str, text: str, **options: object) -> Block:
    return Block("page.md", 1, kind, text, **options)  # type: ignore[arg-type]  # the options of a Block


@pytest.mark.parametrize(
    "block",
    [
        _block("sh", "true\nfalse\ntrue"),
        _block("sh", "(exit 3)", exit_code=4),
        _block("sh", "exit 0"),
        _block("sh", "if"),
        _block("python", "1 / 0"),
        _block("python", "import sys; sys.exit(1)"),
        _block("python", "# test_wrong.py\ndef test_it(): assert False"),
        _block("python", "def"),
        _block("json", "{…}"),
        _block("toml", "a ="),
        _block("yaml", "a: b: c"),
        _block("sh", "if", not_run="needs Docker"),
        _block("text", "what nothing printed"),
    ],
)
def test_a_block_that_fails_fails_the_test(page: PageRunner, block: Block) -> None:
    with pytest.raises(AssertionError, match=r"page\.md:1"):
        page.run(block)


def test_blocks_share_a_shell_an_interpreter_and_a_folder(page: PageRunner) -> None:
    page.run(_block("sh", "NAME=value; greet() { echo hello $NAME; }"))
    page.run(_block("sh", "greet; cat -; (exit 4) || true"))
    page.run(_block("text", "hello …lue"))
    page.run(_block("sh", "(exit 4)", exit_code=4))
    page.run(_block("python", "import asyncio\nvalue = await asyncio.sleep(0, 'slept')"))
    page.run(_block("python", "# helper.py\nNAME = 'file'"))
    page.run(_block("python", "import helper\nprint(value, helper.NAME)"))
    page.run(_block("text", "slept file"))
    page.run(_block("python", "# test_right.py\nimport helper\ndef test_it(): assert helper.NAME == 'file'"))
    page.run(_block("text", "1 passed in …"))
    page.run(_block("sh", "python3 -um http.server 9000 --bind 127.0.0.1", in_second_terminal=True, port="9000"))
    page.run(_block("sh", 'curl -sS http://127.0.0.1:9000/helper.py; echo; curl -sS "$PSP_URL/health"; echo'))
    page.run(_block("text", "NAME = 'file'\n…alive…"))
    assert page.leftovers() == {"helper.py", "test_right.py"}
