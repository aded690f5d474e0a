"""The Makefile recreates a virtual environment only if it is broken. Dry runs (`make -n`): nothing is installed."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RECREATED = "-m venv --clear .venv"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a clone with a fake virtual environment that looks as if `make install` had completed."""
    folder = tmp_path / "a clone"
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (programs / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (programs / "python").chmod(0o755)
    (programs / "pip").touch()
    (programs / "psp").write_text(f"#!/bin/sh\n'''exec' \"{folder}/.venv/bin/python3\" \"$0\" \"$@\"\n' '''\n")
    (folder / ".venv" / ".installed").touch()
    (folder / ".venv" / ".installed-dev").touch()
    (folder / ".venv" / ".client").touch()
    return folder


def dry_run(folder: Path, target: str) -> str:
    """Return the commands that make would run for a target."""
    result = subprocess.run(["make", "-n", "-C", str(folder), target], capture_output=True, text=True, check=True)
    return result.stdout


@pytest.mark.parametrize("target", ["install", "dev", "up"])
def test_a_complete_environment_is_reused(clone: Path, target: str) -> None:
    commands = dry_run(clone, target)
    assert RECREATED not in commands
    assert "--require-hashes" not in commands


@pytest.mark.parametrize("target", ["install", "dev", "up"])
def test_a_moved_environment_is_recreated(clone: Path, target: str) -> None:
    moved = clone.rename(clone.with_name("elsewhere"))
    commands = dry_run(moved, target)
    assert RECREATED in commands
    assert "--require-hashes -r requirements.txt" in commands
    assert ("-r requirements-dev.txt" in commands) == (target == "dev")


def test_an_environment_without_its_python_is_recreated(clone: Path) -> None:
    (clone / ".venv" / "bin" / "python").unlink()
    assert RECREATED in dry_run(clone, "up")


def test_an_incomplete_environment_is_recreated(clone: Path) -> None:
    (clone / ".venv" / "bin" / "psp").unlink()
    assert RECREATED in dry_run(clone, "install")


def test_ci_runs_every_test(clone: Path) -> None:
    assert (ROOT / ".ci" / "run").read_text().endswith("exec make test-all\n")
    assert ".venv/bin/pytest -n auto" in dry_run(clone, "test-all").splitlines()
    assert '.venv/bin/pytest -n auto -m "not slow"' in dry_run(clone, "test").splitlines()
