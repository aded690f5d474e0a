"""Find and end the processes of a run whose process ids are unknown, by their arguments, files and environment."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # the package has no types


def postgres_processes(data: Path) -> list[psutil.Process]:
    """Return the postmaster, backends and initdb of a data directory. Backends are recognized by their working directory."""

    def works_there(process: psutil.Process) -> bool:
        if process.name() not in ("postgres", "initdb"):
            return False
        return str(data) in process.cmdline() or process.cwd() == str(data)

    return _matching(works_there)


def redis_processes(socket: Path) -> list[psutil.Process]:
    """Return the Redis server that listens on a Unix socket."""
    return _matching(lambda process: process.name() == "valkey-server" and str(socket) in process.cmdline())


def processes_of_run(run_id: str, lifeline: int) -> list[psutil.Process]:
    """Return every other process that has this run's lifeline open or its id in the environment."""
    pipe = f"pipe:[{os.fstat(lifeline).st_ino}]"

    def belongs(process: psutil.Process) -> bool:
        # A forked process shows the supervisor's environment, so also check its open files. Forks are used only on Linux, which
        # has /proc.
        return process.environ().get("SANDBOX_RUN_ID") == run_id or pipe in _open_files(process.pid)

    return _matching(belongs)


def _open_files(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed in the meantime
                found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def _matching(test: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    own = psutil.Process().pid
    found = []
    for process in psutil.process_iter():
        # At any point the process may end, or we may lack the permission to inspect it.
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != own and test(process) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_processes(find: Callable[[], list[psutil.Process]], steps: Sequence[tuple[signal.Signals | None, float]]) -> bool:
    """End the processes that `find` returns. Return True once it finds none, False if some survive all steps.

    Each step is a signal (None: only wait) and the seconds to wait for the end. `find` is called repeatedly, so it also finds a
    process that was just starting when its supervisor died.
    """
    for number, seconds in steps:
        deadline = time.monotonic() + seconds
        signalled: set[int] = set()
        while True:
            remaining = find()
            if not remaining:
                return True
            for process in remaining:
                if number is not None and process.pid not in signalled:
                    signalled.add(process.pid)
                    with contextlib.suppress(psutil.Error):
                        process.send_signal(number)
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
    return not find()
