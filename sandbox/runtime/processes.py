"""Finding and ending store processes by what they work on, for the cases where their process ids are not known."""

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it comes without types


def postgres_processes(data: Path) -> list[psutil.Process]:
    """The postmaster, backends and initdb of the data directory `data` (backends are known by their directory)."""

    def works_there(process: psutil.Process) -> bool:
        if process.name() not in ("postgres", "initdb"):
            return False
        return str(data) in process.cmdline() or process.cwd() == str(data)

    return _matching(works_there)


def redis_processes(socket: Path) -> list[psutil.Process]:
    """The server that was started on the Unix socket `socket`."""
    return _matching(lambda process: process.name() == "valkey-server" and str(socket) in process.cmdline())


def processes_of_run(run_id: str) -> list[psutil.Process]:
    """Every process whose environment says that it belongs to this run, our own excepted."""
    return _matching(lambda process: process.environ().get("SANDBOX_RUN_ID") == run_id)


def _matching(test: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    own = psutil.Process().pid
    found = []
    for process in psutil.process_iter():
        # A process may end, or not be ours to look at, at any point of this.
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != own and process.status() != psutil.STATUS_ZOMBIE and test(process):
                found.append(process)
    return found


def end_processes(find: Callable[[], list[psutil.Process]], steps: Sequence[tuple[signal.Signals | None, float]]) -> bool:
    """Send each step's signal (None: only wait) and wait its seconds until `find` finds nothing; True when it does.

    `find` is asked again every time, so a process that was being started when its supervisor died is met as well.
    """
    for number, seconds in steps:
        deadline = time.monotonic() + seconds
        signalled: set[int] = set()
        while True:
            left = find()
            if not left:
                return True
            for process in left:
                if number is not None and process.pid not in signalled:
                    signalled.add(process.pid)
                    with contextlib.suppress(psutil.Error):
                        process.send_signal(number)
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
    return not find()
