"""A run of another process: whether one is on a data folder, and stopping it."""

import fcntl
import os
import signal
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it comes without types

from sandbox.runtime.run_directories import LOCK_NAME, process_lives

_STOP_SECONDS = 120.0
"""Longer than all bounds of a stop together."""
_CLOCK_SLACK_SECONDS = 2.0


class NotRunningError(Exception):
    """Nothing runs on the data folder."""


class NotEndedError(Exception):
    """A run was asked to stop, and still runs."""


def stop(data: Path, seconds: float = _STOP_SECONDS) -> int | None:
    """Stop the run on a data folder and wait until nothing of it is left, at most `seconds`.

    Gives the process id of its supervisor; None if that had died, and its reaper was found cleaning up. Raises
    NotRunningError, NotEndedError, or PermissionError if it is another user's.
    """
    lock = data.expanduser().resolve() / LOCK_NAME
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotRunningError(f"nothing is running on {data}.") from None
    except PermissionError:
        raise PermissionError(f"{lock} is another user's; stop it as that user.") from None
    try:
        if _is_free(handle):
            raise NotRunningError(f"nothing is running on {data}.")
        supervisor = _supervisor(handle)
        if supervisor is not None:
            try:
                supervisor.send_signal(signal.SIGTERM)
            except psutil.NoSuchProcess:
                supervisor = None
            except psutil.AccessDenied:
                raise PermissionError(f"process {supervisor.pid} is another user's; stop it as that user.") from None
        deadline = time.monotonic() + seconds
        # The reaper holds the lock too, until it has cleaned up after a supervisor that was killed.
        while not _is_free(handle) or (supervisor is not None and process_lives(supervisor.pid)):
            if time.monotonic() > deadline:
                raise NotEndedError(f"the sandbox on {data} did not stop within {seconds:.0f} seconds.")
            time.sleep(0.05)
        return supervisor.pid if supervisor is not None else None
    finally:
        os.close(handle)


def _is_free(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(handle, fcntl.LOCK_UN)
    return True


def _supervisor(handle: int) -> psutil.Process | None:
    """The process that wrote its number into the lock; None if it has died, whoever has that number by now."""
    text = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
    try:
        process = psutil.Process(int(text))
        was_there = process.create_time() <= os.fstat(handle).st_mtime + _CLOCK_SLACK_SECONDS
        return process if was_there and process.status() != psutil.STATUS_ZOMBIE else None
    except (ValueError, psutil.Error):
        return None
