"""The external events that end a run: signals, and the end of the parent process."""

import os
import select
import signal
import time
from types import FrameType

_SECOND_AFTER = 0.5
_PARENT_PID = "SANDBOX_PARENT_PID"


class StopRequested(Exception):
    """The run was asked to end. The message is the reason."""


class Signals:
    """Lets a loop wait for signals. Use it as a context manager in the main thread.

    If SIGHUP is ignored at the start (nohup), the run outlives its terminal and its parent. A program that must not leave a
    sandbox behind passes its own pid in SANDBOX_PARENT_PID: then the run ends with it even so, even if it has already ended or
    if another program, such as uvx, stands between the two.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        parent = os.environ.pop(_PARENT_PID, "")
        self._parent = os.getppid()
        self._owner = int(parent) if parent.isdigit() else self._parent
        self._outlive = not parent and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._before: dict[signal.Signals, object] = {}
        self._wakeup_before = -1
        self.reason: str | None = None
        self.force_stop = False
        """Set by a second Ctrl-C: stop waiting for anything."""
        self._first_at = 0.0
        self._taken: list[signal.Signals] = []
        self._is_orphan = False

    def __enter__(self) -> "Signals":
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGCHLD]
        if not self._outlive:
            numbers.append(signal.SIGHUP)
        for number in numbers:
            # SIGCHLD needs a handler too: only signals with a handler are written to the wake-up pipe.
            self._before[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            if self.reason is not None and number != signal.SIGCHLD:
                # Everything has stopped. Another Ctrl-C must not end the process by a signal instead of cleanly.
                handler = signal.SIG_IGN
            signal.signal(number, handler)  # type: ignore[arg-type]  # a handler that signal.signal returned
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._reader)
        os.close(self._writer)
        self._writer = -1

    def _record(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGCHLD:
            return
        self._taken.append(signal.Signals(number))
        if self.reason is None:
            self.reason = signal.Signals(number).name
            self._first_at = time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._first_at > _SECOND_AFTER:
            # `timeout` and some shells send the same signal twice in a row; a person takes longer to press Ctrl-C again.
            self.force_stop = True

    def wake(self) -> None:
        """End the current or next `wait`. Thread-safe."""
        try:
            if self._writer >= 0:
                os.write(self._writer, b"\0")
        except OSError:
            pass  # the pipe is full, so a wake-up is pending; or it is closed, so nothing waits

    def wait(self, seconds: float) -> None:
        """Sleep up to `seconds`, until a signal, the end of a child or a `wake`."""
        ready, _, _ = select.select([self._reader], [], [], max(0.0, seconds))
        if ready:
            try:
                while os.read(self._reader, 512):
                    pass
            except BlockingIOError:
                pass

    def check(self) -> None:
        """Raise StopRequested if the run was asked to end."""
        if self.reason is None and self._parent_has_ended():
            self.reason = "the parent process has ended"
        if self.reason is not None:
            raise StopRequested(self.reason)

    def take(self) -> list[signal.Signals]:
        """Return the signals since the last call that asked the run to end, in order.

        For a loop that forwards them instead of calling `check`. The end of the parent process counts as one SIGTERM.
        """
        if not self._is_orphan and self._parent_has_ended():
            self._is_orphan = True
            self._taken.append(signal.SIGTERM)
        taken, self._taken = self._taken, []
        return taken

    def _parent_has_ended(self) -> bool:
        if self._outlive:
            return False
        return os.getppid() != self._parent or (self._owner != self._parent and not _is_alive(self._owner))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's, so it exists
    return True
