"""`psp new` writes the guide's first tests, and the files that the examples have."""

import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.cli.new import Template
from sandbox.server.docs.site import FOLDER
from tests.harness.code_blocks import PAGES, ROOT, blocks_of
from tests.harness.command import invoke
from tests.harness.supervised import environment

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the guide is not built")
WRITTEN = {
    "pytest": ["test_first.py"],
    "vitest": ["returned.test.js"],
    "phpunit": ["ReturnedTest.php", "examples/php/PspTestCase.php"],
    "junit": ["ReturnedTest.java", "examples/java/Psp.java"],
    "minitest": ["returned_test.rb", "examples/ruby/psp.rb"],
    "rspec": ["returned_spec.rb", "examples/ruby/psp.rb"],
    "go": ["returned_test.go", "examples/go/psp_test.go"],
}
"""Template → the test, which a page shows, and the file of the repository."""


@pytest.mark.parametrize("template", Template)
def test_each_template_is_what_the_guide_shows_and_is_never_overwritten(template: Template, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "project"
    done = invoke("new", template, str(folder))
    assert done.exit_code == 0, done.output
    assert "Run " in done.stdout
    test, *copied = WRITTEN[template]
    (shown,) = [block.text for page in PAGES for block in blocks_of(page) if test in block.text.split("\n", 1)[0]]
    assert (folder / test).read_text().strip() == shown.strip()
    for path in copied:
        assert (folder / Path(path).name).read_bytes() == (ROOT / path).read_bytes()
    assert {path.name for path in folder.iterdir()} == {test, *(Path(path).name for path in copied)}
    (folder / test).write_text("mine")
    for path in copied:
        (folder / Path(path).name).unlink()
    again = invoke("new", template, str(folder))
    assert again.exit_code == 1
    assert f"{folder / test} exists already" in again.stderr
    assert [path.read_text() for path in folder.iterdir()] == ["mine"]


@pytest.mark.slow
def test_the_first_test_of_pytest_passes(tmp_path: Path) -> None:
    assert invoke("new", "pytest", str(tmp_path)).exit_code == 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."], cwd=tmp_path, env=environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
