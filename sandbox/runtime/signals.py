"""What ends a run from outside: signals, and the death of the process that started us."""

import os
import select
import signal
import time
from types import FrameType

_SECOND_AFTER = 0.5


class StopRequested(Exception):
    """Somebody asked the run to end; the message says how."""


class Signals:
    """Turns signals into something a loop can wait for. Use it in the main thread, as a context manager.

    SIGHUP that is ignored at the start (nohup) means that the run is to outlive its terminal and its parent.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._parent = os.getppid()
        self._outlive = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._before: dict[signal.Signals, object] = {}
        self._wakeup_before = -1
        self.reason: str | None = None
        self.impatient = False
        """A second Ctrl-C came: stop waiting for anything."""
        self._first_at = 0.0
        self._taken: list[signal.Signals] = []
        self._is_orphan = False

    def __enter__(self) -> "Signals":
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGCHLD]
        if not self._outlive:
            numbers.append(signal.SIGHUP)
        for number in numbers:
            # SIGCHLD too: only a signal that has a handler is written to the wake-up pipe.
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            if self.reason is not None and number != signal.SIGCHLD:
                # Everything has been stopped: one more Ctrl-C must not turn the clean end into a death by signal.
                handler = signal.SIG_IGN
            signal.signal(number, handler)  # type: ignore[arg-type]  # what was set before is taken back
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._reader)
        os.close(self._writer)
        self._writer = -1

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGCHLD:
            return
        self._taken.append(signal.Signals(number))
        if self.reason is None:
            self.reason = signal.Signals(number).name
            self._first_at = time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._first_at > _SECOND_AFTER:
            # `timeout` and some shells send one request twice at once; a person takes longer.
            self.impatient = True

    def wake(self) -> None:
        """End the current or next `wait` (from any thread)."""
        try:
            if self._writer >= 0:
                os.write(self._writer, b"\0")
        except OSError:
            pass  # full, so a wake is already under way; or closed, so nobody waits

    def wait(self, seconds: float) -> None:
        """Sleep until a signal, a child's end or `wake`, at most `seconds`."""
        ready, _, _ = select.select([self._reader], [], [], max(0.0, seconds))
        if ready:
            try:
                while os.read(self._reader, 512):
                    pass
            except BlockingIOError:
                pass

    def check(self) -> None:
        """Raise StopRequested when the run is to end."""
        if self.reason is None and self._parent_has_ended():
            self.reason = "the process that started it has ended"
        if self.reason is not None:
            raise StopRequested(self.reason)

    def take(self) -> list[signal.Signals]:
        """The signals since the last call that asked the run to end, in order, for a loop that passes them on instead of
        calling `check`. The end of the process that started us counts as one SIGTERM."""
        if not self._is_orphan and self._parent_has_ended():
            self._is_orphan = True
            self._taken.append(signal.SIGTERM)
        taken, self._taken = self._taken, []
        return taken

    def _parent_has_ended(self) -> bool:
        return not self._outlive and os.getppid() != self._parent
