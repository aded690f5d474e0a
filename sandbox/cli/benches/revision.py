"""Check out another revision of the repository for the duration of a measurement."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sandbox
from sandbox.cli.benches.stack import BenchError, exit_on_sigterm

ROOT = Path(sandbox.__file__).resolve().parents[1]
"""The root directory of the running code."""
_GIT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit, and the directory with its files."""

    commit: str
    folder: Path


@contextlib.contextmanager
def check_out(name: str, repository: Path = ROOT) -> Iterator[Revision]:
    """Check out a revision in a temporary git worktree, and remove it afterwards.

    Raises BenchError if `repository` is not a git checkout, or has no such revision.
    """
    commit = find_commit(name, repository)
    with exit_on_sigterm(), tempfile.TemporaryDirectory(prefix="psp-bench-revision-") as outer:
        folder = Path(outer) / commit[:12]
        try:
            # Do not run the user's hooks for this checkout.
            git(repository, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach", str(folder), commit)
            _check_imports(folder, commit)
            yield Revision(commit, folder)
        finally:
            with contextlib.suppress(BenchError):  # an interrupted `worktree add` may have left nothing to remove
                git(repository, "worktree", "remove", "--force", str(folder))


def find_commit(name: str, repository: Path = ROOT) -> str:
    """Return the full commit hash of a revision. Raises BenchError."""
    try:
        top = Path(git(repository, "rev-parse", "--show-toplevel"))
    except BenchError:
        top = None
    if top is None or top.resolve() != repository.resolve():
        raise BenchError(f"{repository} is not a git checkout. Clone the repository, and run psp from the clone.")
    try:
        return git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except BenchError:
        raise BenchError(
            f"The repository has no revision {name!r}. Give a commit, branch or tag that git log shows. To get those of the "
            "remote repository, run: git fetch"
        ) from None


def _check_imports(folder: Path, commit: str) -> None:
    """Raise BenchError unless Python imports the sandbox from `folder` and finds all its requirements."""
    command = "import sandbox, sandbox.cli.main; print(sandbox.__file__)"
    completed = subprocess.run(  # noqa: S603 (a fixed command)
        [sys.executable, "-P", "-c", command],
        cwd=folder,
        env=dict(os.environ) | {"PYTHONPATH": str(folder)},
        check=False,
        capture_output=True,
        text=True,
        timeout=_GIT_SECONDS,
    )
    if completed.returncode != 0:
        reason = (completed.stderr.strip() or "no output").splitlines()[-1]
        raise BenchError(
            f"Revision {commit[:12]} cannot run in this Python environment: {reason}. First install its requirements, "
            f"which this shows: git show {commit[:12]}:requirements.txt"
        )
    if not Path(completed.stdout.strip()).resolve().is_relative_to(folder.resolve()):
        raise BenchError(f"Python imports the sandbox from {completed.stdout.strip()}, although PYTHONPATH is {folder}.")


def git(repository: Path, *arguments: str) -> str:
    """Run git, and return its output. Raises BenchError."""
    # Inside a git hook, GIT_DIR and similar variables point to another repository.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        completed = subprocess.run(  # noqa: S603 (a fixed command)
            ["git", "-C", str(repository), *arguments],  # noqa: S607 (git is wherever PATH says)
            env=env,
            check=True,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            start_new_session=True,  # a second Ctrl-C must not interrupt the removal of the worktree
        )
    except FileNotFoundError:
        raise BenchError("git is not installed.") from None
    except subprocess.CalledProcessError as error:
        raise BenchError(f"git {arguments[0]} failed: {error.stderr.strip()}") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"git {arguments[0]} took longer than {_GIT_SECONDS:.0f} seconds.") from error
    return completed.stdout.strip()
