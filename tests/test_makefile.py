"""What the Makefile would do, asked with `make -n`: nothing is installed."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MADE_ANEW = "-m venv --clear .venv"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose virtual environment stands for one that `make install` finished there."""
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
    return folder


def would_do(folder: Path, target: str) -> str:
    """The commands that make would run for a target."""
    asked = subprocess.run(["make", "-n", "-C", str(folder), target], capture_output=True, text=True, check=True)
    return asked.stdout


@pytest.mark.parametrize("target", ["install", "dev", "up"])
def test_an_environment_that_fits_is_left_alone(clone: Path, target: str) -> None:
    commands = would_do(clone, target)
    assert MADE_ANEW not in commands
    assert "--require-hashes" not in commands


@pytest.mark.parametrize("target", ["install", "dev", "up"])
def test_an_environment_in_a_folder_that_was_moved_is_made_anew(clone: Path, target: str) -> None:
    moved = clone.rename(clone.with_name("elsewhere"))
    commands = would_do(moved, target)
    assert MADE_ANEW in commands
    assert "--require-hashes -r requirements.txt" in commands
    assert ("-r requirements-dev.txt" in commands) == (target == "dev")


def test_an_environment_whose_python_has_gone_is_made_anew(clone: Path) -> None:
    (clone / ".venv" / "bin" / "python").unlink()
    assert MADE_ANEW in would_do(clone, "up")


def test_an_environment_that_was_half_made_is_made_anew(clone: Path) -> None:
    (clone / ".venv" / "bin" / "psp").unlink()
    assert MADE_ANEW in would_do(clone, "install")
