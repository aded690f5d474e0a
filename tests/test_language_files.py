"""The files to copy for PHP, Java, Ruby and Go: each gives the guide's first test and a shop's tests their merchants."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from build_backend.guide import with_included_files
from tests.harness.code_blocks import ROOT, blocks_of
from tests.harness.programs import needs
from tests.harness.waiting import until
from tests.harness.world import Stack

PAGE: Final = ROOT / "docs/languages.md"
_JARS: Final = Path("/usr/share/java")
_JUNIT: Final = ("junit-jupiter-*", "junit-platform-*", "apiguardian-api", "opentest4j", "picocli", "univocity-parsers")
_CLASSPATH: Final = ":".join(str(jar) for name in _JUNIT for jar in sorted(_JARS.glob(f"{name}.jar")))
_HAS_JUNIT: Final = (_JARS / "junit-platform-console.jar").exists()


@dataclass(frozen=True)
class Language:
    """A file to copy, the guide's first test, the shop with its tests, and how to run tests."""

    name: str
    copied: str
    first: str
    shop: tuple[str, ...]
    commands: tuple[str, ...]
    """Shell commands, where $1 is the file of the tests."""


_JAVA: Final = (
    f"javac -cp '{_CLASSPATH}' -d classes *.java",
    f"java -cp 'classes:{_CLASSPATH}' org.junit.platform.console.ConsoleLauncher --scan-classpath=classes --disable-banner",
)
LANGUAGES: Final = [
    pytest.param(
        Language("php", "PspTestCase.php", "ReturnedTest.php", ("Shop.php", "ShopTest.php"), ('phpunit "$1"',)),
        id="phpunit", marks=needs("phpunit"),
    ),
    pytest.param(
        Language("java", "Psp.java", "ReturnedTest.java", ("Shop.java", "ShopTest.java"), _JAVA),
        id="junit", marks=[needs("javac"), pytest.mark.skipif(not _HAS_JUNIT, reason="JUnit 5 is not installed")],
    ),
    pytest.param(
        Language("ruby", "psp.rb", "returned_test.rb", ("shop.rb", "shop_test.rb"), ('ruby -w "$1"',)),
        id="minitest", marks=needs("ruby"),
    ),
    pytest.param(Language("ruby", "psp.rb", "returned_spec.rb", (), ('rspec "$1"',)), id="rspec", marks=needs("rspec")),
    pytest.param(
        Language("go", "psp_test.go", "returned_test.go", ("shop.go", "shop_test.go"), ("go mod init shop", "go test")),
        id="go", marks=needs("go"),
    ),
]  # fmt: skip


def _environment(temporary: Path, path: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PSP_", "SANDBOX_", "PYTEST_"))}
    return kept | {"PATH": path, "TMPDIR": str(temporary)}


def _run(
    language: Language,
    folder: Path,
    tests: str,
    path: str = f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    given: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run tests in a project, and return the exit code and the output. No sandbox is left when this returns."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    done = subprocess.run(
        ["sh", "-e", "-c", "\n".join(language.commands), "sh", tests], cwd=folder,
        env=_environment(temporary, path) | (given or {}), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=180, check=False,
    )  # fmt: skip
    # The folder of the sandbox that the tests have started, which has its keys, goes when its process has ended.
    until(lambda: not [*temporary.glob("psp-*/ready"), *temporary.glob("psp-*/ended")], seconds=60)
    return done.returncode, done.stdout


def _project(folder: Path, language: Language, files: Sequence[str]) -> Path:
    for file in (language.copied, *files):
        shutil.copy(ROOT / "examples" / language.name / file, folder)
    return folder


def _first_test(language: Language) -> str:
    (found,) = [block.text for block in blocks_of(PAGE) if language.first in block.text.split("\n", 1)[0]]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_guides_first_test_passes_with_the_copied_file_alone(language: Language, tmp_path: Path) -> None:
    project = _project(tmp_path, language, ())
    (project / language.first).write_text(_first_test(language))
    code, output = _run(language, project, language.first)
    assert code == 0, output


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_webhook_that_did_not_arrive_is_reported_with_those_that_did(language: Language, tmp_path: Path) -> None:
    project = _project(tmp_path, language, ())
    test = re.sub(r"^.*[.>][aA]dvance\(.*\n", "", _first_test(language), flags=re.MULTILINE)
    if language.name in ("go", "java"):  # no unused imports
        test = test.replace('\t"time"\n', "").replace("import java.time.Duration;\n", "")
    (project / language.first).write_text(test)
    code, output = _run(language, project, language.first)
    assert code != 0, output
    assert "expected payout.returned once" in output
    assert "payout.succeeded" in output
    assert re.search(r"The clock is frozen: what is due later needs [aA]dvance", output), output


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("script", "reason"), [("echo it is broken; exit 1", "it is broken"), ("exec sleep 600", "not ready within")]
)
def test_without_a_sandbox_the_error_says_how_to_get_one(language: Language, tmp_path: Path, script: str, reason: str) -> None:
    """The copied files wait for two minutes, here for one second."""
    project = _project(tmp_path, language, ())
    copied = (project / language.copied).read_text()
    assert copied.count("2_400") == 1
    (project / language.copied).write_text(copied.replace("2_400", "20"))
    (project / language.first).write_text(_first_test(language))
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "psp").write_text(f"#!/bin/sh\n{script}\n")
    (broken / "psp").chmod(0o755)
    code, output = _run(language, project, language.first, path=f"{broken}:{os.environ['PATH']}")
    assert code != 0, output
    assert "put psp on the PATH (pipx install 'psp-sandbox[server]'), or set PSP_URL and PSP_ADMIN_KEY" in output
    assert reason in output


@pytest.mark.slow
@pytest.mark.parametrize("language", [one for one in LANGUAGES if one.id != "rspec"])
def test_the_shops_tests_pass(language: Language, tmp_path: Path) -> None:
    code, output = _run(language, _project(tmp_path, language, language.shop), language.shop[1])
    assert code == 0, output


MISTAKES: Final = {
    "takes forged webhooks": {
        "php": ("if (!$this->isAuthentic($headers, $body))", "if (false)"),
        "java": ("if (!isAuthentic(headers, body)) return 401;", ""),
        "ruby": ("return 401 unless authentic?(headers, body)", ""),
        "go": (" || !isValid(shop.WebhookSecret, r.Header, body)", ""),
    },
    "has a new key for each attempt": {
        "php": ("X-IDEMPOTENCY-KEY: $id", "X-IDEMPOTENCY-KEY: {${uniqid()}}"),
        "java": (
            "client.send(request,",
            'client.send(HttpRequest.newBuilder(request, (name, value) -> !name.equals("X-IDEMPOTENCY-KEY"))'
            '.header("X-IDEMPOTENCY-KEY", "" + attempt).build(),',
        ),
        "ruby": ('"X-IDEMPOTENCY-KEY" => id', '"X-IDEMPOTENCY-KEY" => rand.to_s'),
        "go": ('"X-Idempotency-Key": {key}', '"X-Idempotency-Key": {time.Now().String()}'),
    },
    "gives up immediately": {
        "php": ("ATTEMPTS = 3", "ATTEMPTS = 1"),
        "java": ("ATTEMPTS = 3", "ATTEMPTS = 1"),
        "ruby": ("ATTEMPTS = 3", "ATTEMPTS = 1"),
        "go": ("attempts = 3", "attempts = 1"),
    },
    "keeps the first state": {
        "php": ('if ($data["version"] > (', 'if (!isset($this->orders[$data["merchant_reference"]]) && $data["version"] > ('),
        "java": (" || version > orders.get(id).version()", ""),
        "ruby": ('if data["version"] > known', "if known.zero?"),
        "go": (
            "if event.Data.Version > shop.orders[event.Data.Reference].version {",
            "if shop.orders[event.Data.Reference].version == 0 {",
        ),
    },
}
"""Mistake → language → a text of the shop, and what replaces it."""


@pytest.mark.slow
@pytest.mark.parametrize("language", [one for one in LANGUAGES if one.id != "rspec"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_shops_tests_notice_a_mistake(language: Language, mistake: str, tmp_path: Path, stack: Stack) -> None:
    """They use a sandbox that runs already."""
    project = _project(tmp_path, language, language.shop)
    shop = project / language.shop[0]
    right, wrong = MISTAKES[mistake][language.name]
    assert shop.read_text().count(right) == 1
    shop.write_text(shop.read_text().replace(right, wrong))
    given = {"PSP_URL": stack.api_url, "PSP_ADMIN_KEY": stack.admin_key}
    code, output = _run(language, project, language.shop[1], path="/usr/bin:/bin", given=given)
    assert code != 0, output
    assert re.search("a_?lost_?answer|forged_?webhook|learns", output, re.IGNORECASE), output


def test_each_file_is_short_starts_psp_alike_and_is_shown_whole_by_the_guide() -> None:
    shown = with_included_files(PAGE.read_text())
    started = set()
    for path in {f"examples/{one.values[0].name}/{one.values[0].copied}" for one in LANGUAGES}:  # type: ignore[union-attr]  # a Language
        text = (ROOT / path).read_text()
        assert len(text.splitlines()) < 200, path
        assert text.rstrip() in shown, path
        (script,) = re.findall(r'unset DATABASE_URL.*?rm -rf "\$0"', text, flags=re.DOTALL)
        started.add(re.sub(r"\n\s*", "\n", script))
    assert len(started) == 1, started
