"""`psp new`: write a first test into a project, from the files and pages of the guide."""

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from sandbox.cli.failures import refused


class Template(StrEnum):
    """What `psp new` can write."""

    PYTEST = "pytest"
    VITEST = "vitest"
    PHPUNIT = "phpunit"
    JUNIT = "junit"
    MINITEST = "minitest"
    RSPEC = "rspec"
    GO = "go"


@dataclass(frozen=True, slots=True)
class _Source:
    page: str
    """The page of the guide that shows the test."""
    test: str
    """The test's file, which the first line of the page's block names."""
    run: str
    copied: str | None = None
    """The file to copy, in `examples/`."""


_OTHER: Final = "languages.md"
_SOURCES: Final = {
    Template.PYTEST: _Source("pytest.md", "test_first.py", "pytest"),
    Template.VITEST: _Source("node.md", "returned.test.js", "npm install --save-dev psp-sandbox vitest && npx vitest run"),
    Template.PHPUNIT: _Source(_OTHER, "ReturnedTest.php", "phpunit ReturnedTest.php", "php/PspTestCase.php"),
    Template.JUNIT: _Source(_OTHER, "ReturnedTest.java", "your tests, with Maven or Gradle", "java/Psp.java"),
    Template.MINITEST: _Source(_OTHER, "returned_test.rb", "ruby returned_test.rb", "ruby/psp.rb"),
    Template.RSPEC: _Source(_OTHER, "returned_spec.rb", "rspec returned_spec.rb", "ruby/psp.rb"),
    Template.GO: _Source(_OTHER, "returned_test.go", "go test (in an empty folder, first: go mod init shop)", "go/psp_test.go"),
}


def new(
    template: Annotated[Template, typer.Argument(help="The test framework.", metavar="TEMPLATE")],
    folder: Annotated[Path, typer.Argument(help="The folder for the files; it is created if it does not exist.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the response as JSON and nothing else.")] = False,
) -> None:
    """Write a first test into a project: pytest, vitest, phpunit, junit, minitest, rspec or go.

    For PHP, Java, Ruby and Go, the file that gives each test its merchant is written too. The exit code is 1 if one of the
    files exists already; then nothing is written.
    """
    source = _SOURCES[template]
    texts = _texts(source)
    existing = [name for name in texts if (folder / name).exists()]
    if existing:
        raise refused(f"psp new: {folder / existing[0]} exists already; nothing was written.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise refused(f"psp new: {error.filename}: {error.strerror}") from None
    written = [str(folder / name) for name in texts]
    told = json.dumps({"written": written, "run": source.run}) if as_json else f"Wrote {', '.join(written)}. Run {source.run}."
    typer.echo(told)


def _texts(source: _Source) -> dict[str, str]:
    """Return file name → content. Raises Failure if this installation has no guide."""
    from sandbox.server.docs.site import FOLDER

    try:
        texts = {source.test: _block(FOLDER / source.page, source.test)}
        if source.copied is not None:
            copied = FOLDER / "files" / "examples" / source.copied
            texts[copied.name] = copied.read_text("utf-8")
    except FileNotFoundError:
        raise refused("psp new: this installation has no guide, which contains the files; build it with `make docs`.") from None
    return texts


def _block(page: Path, file: str) -> str:
    """Return the code block of a page whose first line names a file."""
    found = re.search(rf"^```\w+\n([^\n]*\b{re.escape(file)}\n.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None, f"{page} has no block {file}"
    return found[1]
