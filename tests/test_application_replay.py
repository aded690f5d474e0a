"""A failed test of an application becomes a test that fails while the application has the mistake, and passes without it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from examples.broken_shops import variants as declared
from psp_sandbox.testing.process import Address, SandboxProcess

ROOT = Path(__file__).parent.parent
SHOP = ROOT / "examples" / "shop"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Address]:
    """A sandbox with one API process: with several, a fault needs a moment until all know it."""
    process = SandboxProcess()
    yield process.start()
    process.stop()


def run_tests(folder: Path, sandbox: Address, *arguments: str) -> dict[str, bool]:
    """Run tests, and return which have passed, by the folder below `folder`, the module and the name."""
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(folder),
        "--psp-url", sandbox.url, "--psp-admin-key", sandbox.admin_key or "", "--junitxml=results.xml", *arguments,
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    (folder / "output.txt").write_text(done.stdout)
    cases = ElementTree.parse(folder / "results.xml").iter("testcase")  # noqa: S314 (written by our own pytest)
    return {f"{one.get('classname')}::{one.get('name')}": one.find("failure") is None for one in cases}


def copy_shop(folder: Path) -> None:
    """Copy the correct shop with all its tests, as a package."""
    shutil.copytree(SHOP, folder, ignore=shutil.ignore_patterns("__pycache__"))


def change(variant: declared.Variant, folder: Path) -> None:
    """Make the variant's mistake in a copy of the shop."""
    for one in variant.changes:
        path = folder / one.file
        path.write_text(path.read_text().replace(one.old, one.new))


def to_test(bundle: Path, output: Path) -> None:
    """Write the test of a bundle with the command."""
    command = [sys.executable, "-m", "psp_sandbox", "world", "to-test", str(bundle), "-o", str(output)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
