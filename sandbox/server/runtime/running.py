"""Find the run that uses a data directory, and stop it."""

import fcntl
import os
import signal
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # the package has no types

from sandbox.server.runtime.run_directories import LOCK_NAME, process_lives

_STOP_SECONDS = 120.0
"""Longer than the sum of all time limits of a stop."""
_CLOCK_SLACK_SECONDS = 2.0


class NotRunningError(Exception):
    """No run uses the data directory."""


class NotEndedError(Exception):
    """A run was asked to stop, but is still running."""


def stop(data: Path, seconds: float = _STOP_SECONDS) -> int | None:
    """Stop the run that uses a data directory, and wait up to `seconds` until all of it has ended.

    Returns the supervisor's process id; None if it was already dead and its reaper was cleaning up. Raises
    NotRunningError, NotEndedError, or PermissionError if the run belongs to another user.
    """
    lock = data.expanduser().resolve() / LOCK_NAME
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotRunningError(f"nothing is running on {data}.") from None
    except PermissionError:
        raise PermissionError(f"{lock} belongs to another user; stop the sandbox as that user.") from None
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
                raise PermissionError(f"process {supervisor.pid} belongs to another user; stop it as that user.") from None
        deadline = time.monotonic() + seconds
        # The reaper also holds the lock, until it has cleaned up after a killed supervisor.
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
    """Return the process that wrote its pid into the lock; None if it has died, even if another process reuses the pid."""
    text = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
    try:
        process = psutil.Process(int(text))
        is_old_enough = process.create_time() <= os.fstat(handle).st_mtime + _CLOCK_SLACK_SECONDS
        return process if is_old_enough and process.status() != psutil.STATUS_ZOMBIE else None
    except (ValueError, psutil.Error):
        return None
