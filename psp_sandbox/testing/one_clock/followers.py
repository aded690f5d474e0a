"""Move an application's clocks, and wait until all of its processes have done what was due."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from psp_sandbox.testing.one_clock.clock_file import ClockFile, Wait
from psp_sandbox.testing.one_clock.library import VARIABLE, OneClockError, why_not

_PROC: Final = Path("/proc")
_START_SECONDS: Final = 2.0
_QUIET_SAMPLES: Final = 4
_QUIET_SAMPLES_BETWEEN: Final = 2
"""The same after a step that no long wait has ended."""
_PAUSE_SECONDS: Final = 0.002
_MAX_STEP_SECONDS: Final = 2.0
"""How long one step waits for an application that does not come to rest after the clocks have moved."""
_MAX_REQUEST_SECONDS: Final = 6.0
"""How long it waits before they move, for open requests: a busy machine can need seconds for one."""
_MIN_STEP_SECONDS: Final = 0.1
"""The least that either waits: others may keep the application busy, so each wait in vain halves the next."""
_RECOVERY: Final = 1.1
"""The wait for requests grows by this factor after a success: slowly, so that a slow request at each step still shortens it."""
_MILLISECOND: Final = timedelta(milliseconds=1)
_MAX_STEPS: Final = 1800
"""25 hours in steps of less than a minute, so that a timer of a minute fires at its times."""
_EXACT_STEPS: Final = 10
"""The last steps, which do not become larger: a timer on the way that has been late fires before the end."""
_BUDGET_SECONDS: Final = 18.0
"""How long all steps of a move may take in real time. If they take longer, they become larger."""
_SOON: Final = timedelta(milliseconds=250)
"""A wait that ends so soon is a reason for a step even if steps have become larger. It could end by itself after the sandbox's
clock has moved and before the application's has, so that its thread would see two different times."""
_RUNS: Final = frozenset({"R", "D"})


class Move:
    """One move of an application's clocks to a later time, in steps: each ends when the next of its waits does.

    Waits that are shorter than an 1800th of the way are no reason for a step, because a short interval would take forever. But
    they may be those of an event loop, which waits for its next timer only. So while there are any, steps are that short.
    """

    def __init__(self, clock: ClockFile, target: datetime, is_busy: Callable[[], bool] = lambda: False) -> None:
        self._clock = clock
        self._target = target
        self._is_busy = is_busy
        self._shortest = (target - clock.now) / _MAX_STEPS
        self._patience = _MAX_STEP_SECONDS
        self._request_patience = _MAX_REQUEST_SECONDS
        self._steps = 0
        self._began = time.monotonic()

    def next_stop(self) -> datetime:
        """Return the next time at which the application has something to do, or the target."""
        with self._requests_held():  # an event loop that handles a request does not tell when its next timer is due
            now = self._clock.now
            shortest = self._shortest_now(now)
            waits = [wait for wait in self._clock.waits() if _lives(wait.process)]
        ends = [max(wait.left, _MILLISECOND if self._is_stop(wait, shortest) else shortest) for wait in waits]
        return min([self._target, *(now + left for left in ends)])

    def _is_stop(self, wait: Wait, shortest: timedelta) -> bool:
        return wait.length > shortest or (wait.length > self._shortest and wait.left < _SOON)

    def _shortest_now(self, now: datetime) -> timedelta:
        ahead = self._target - now - self._shortest * _EXACT_STEPS
        if self._steps <= 20 or ahead <= timedelta(0):
            return self._shortest
        spent = time.monotonic() - self._began
        affordable = (_BUDGET_SECONDS - spent) * self._steps / max(spent, 0.001)
        return max(self._shortest, ahead / max(affordable, 1.0))

    def reach(self, moment: datetime) -> None:
        """Move the clocks to a time, and wait until the application is at rest: no wait is over, and no thread runs."""
        self._steps += 1
        distance = moment - self._clock.now
        is_awaited = any(wait.left <= distance for wait in self._clock.waits() if wait.length > self._shortest)
        samples = _QUIET_SAMPLES if is_awaited or moment >= self._target else _QUIET_SAMPLES_BETWEEN
        with self._requests_held():  # others may have sent the application something since the last step
            self._clock.move_to(moment)
        if not self._rest(samples, self._patience):
            self._patience = _after_in_vain(self._patience)

    @contextlib.contextmanager
    def _requests_held(self) -> Iterator[None]:
        """Let the application finish what it does, and begin to handle no further requests."""
        self._clock.hold_requests(self._request_patience)
        try:
            # Work may be on its way from one thread to another for a moment.
            if not self._is_active() or self._rest(_QUIET_SAMPLES_BETWEEN, self._request_patience):
                self._request_patience = min(_MAX_REQUEST_SECONDS, self._request_patience * _RECOVERY)
            else:
                self._request_patience = _after_in_vain(self._request_patience)
                if self._asks():
                    self._clock.give_up_requests()
            yield
        finally:
            self._clock.hold_requests(0)

    def _rest(self, samples: int, seconds: float) -> bool:
        """Wait until the application is at rest, and return whether it is."""
        ends, quiet = time.monotonic() + seconds, 0
        while quiet < samples:
            if time.monotonic() > ends:
                return False
            quiet = 0 if self._is_active() else quiet + 1
            if quiet < samples:
                time.sleep(_PAUSE_SECONDS)
        return True

    def _is_active(self) -> bool:
        return self._is_busy() or self._has_due_wait() or self._asks() or any_runs(self._clock.processes)

    def _asks(self) -> bool:
        asking = {process for process, count in self._clock.open_requests().items() if count}
        return any(map(_lives, asking | self._clock.unfinished_answers()))

    def _has_due_wait(self) -> bool:
        return any(wait.left <= timedelta(0) and _lives(wait.process) for wait in self._clock.waits())


def any_runs(processes: Iterable[int]) -> bool:
    """Return whether a thread of these processes runs, or is about to."""
    threads = [thread for process in processes for thread in _threads(process)]
    # A thread may fall asleep just before its turn, after it has woken one that was seen asleep. So look in reverse too.
    return any(_state(thread) in _RUNS for thread in [*threads, *reversed(threads)])


def _after_in_vain(patience: float) -> float:
    return max(_MIN_STEP_SECONDS, patience / 2)


def require_all_following(clock: ClockFile) -> None:
    """Forget the processes that have ended, and raise OneClockError if one that lives does not follow the clock."""
    for process in clock.processes:
        if not _lives(process):
            clock.forget(process)
    ends = time.monotonic() + _START_SECONDS
    while True:
        living = _with_variable(f"{VARIABLE}={clock.path}".encode())
        reasons = {process: why_not(program) for process, program in living.items()}
        late = living.keys() - clock.processes
        for process, program in living.items():
            reason = reasons[process] or ("the library is not preloaded into it" if process in late else None)
            # A process that has just started has not loaded the library yet.
            if reason is not None and (process not in late or time.monotonic() > ends):
                raise OneClockError(f"{program} (process {process}) does not follow the merchant's clock: {reason}.")
        if not late:
            return
        time.sleep(_PAUSE_SECONDS)


def _with_variable(variable: bytes) -> dict[int, Path]:
    """Return the processes that have a variable in their environment, with their programs."""
    found = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended, or belongs to another user
                if variable in (folder / "environ").read_bytes().split(b"\0") and _lives(int(folder.name)):
                    found[int(folder.name)] = Path(os.readlink(folder / "exe"))
    return found


def _lives(process: int) -> bool:
    return _state(_PROC / str(process)) not in ("", "Z", "X")


def _threads(process: int) -> list[Path]:
    try:
        return list((_PROC / str(process) / "task").iterdir())
    except OSError:
        return []


def _state(folder: Path) -> str:
    """Return the state of a process or thread: a letter, or nothing if it has ended."""
    try:
        return (folder / "stat").read_text("utf-8", "replace").rpartition(") ")[2][:1]
    except OSError:
        return ""
