"""The file that the processes of an application share: how far their clocks are from the host's, and what they wait for.

`one_clock.h` has the same layout.
"""

import hashlib
import mmap
import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

_OFFSETS: Final = struct.Struct("=qq")
_IS_MOVING: Final = struct.Struct("=i")
_ROUND: Final = struct.Struct("=i")
_DIGEST: Final = struct.Struct("=32s")
_HELD_UNTIL: Final = struct.Struct("=q")
_PROCESS: Final = struct.Struct("=i4xqq")
_WAIT: Final = struct.Struct("=iiqq")
_ROUND_AT: Final = _OFFSETS.size + _IS_MOVING.size
_DIGEST_AT: Final = _ROUND_AT + _ROUND.size
_HELD_UNTIL_AT: Final = _DIGEST_AT + _DIGEST.size
_PROCESSES_AT: Final = _HELD_UNTIL_AT + _HELD_UNTIL.size
_WAITS_AT: Final = _PROCESSES_AT + 1024 * _PROCESS.size
_SIZE: Final = _WAITS_AT + 1024 * _WAIT.size
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def digest_of(api_key: bytes) -> bytes:
    """Return what stands for an API key where the key itself must not be."""
    return hashlib.sha256(api_key).digest()


def clock_of(folder: Path, merchant_id: str) -> "ClockFile | None":
    """Return the clocks of the application that follows a merchant's clock, or None if there is none."""
    try:
        return ClockFile(folder / merchant_id)
    except FileNotFoundError:
        return None


class Wait(NamedTuple):
    """A thread that waits, until a time at most."""

    process: int
    left: timedelta
    """Zero or less if it is over."""
    length: timedelta


class ClockFile:
    """The clocks of an application, as one process moves them and many read them."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _SIZE)
        self.path = path

    @classmethod
    def create(cls, path: Path) -> "ClockFile":
        """Create a file whose clocks are the host's."""
        path.write_bytes(bytes(_SIZE))
        return cls(path)

    def follow(self, api_key: str, now: datetime) -> None:
        """Follow the clock of a key's merchant, which shows `now`. The wall clock may go back, the monotonic one never does."""
        _DIGEST.pack_into(self._shared, _DIGEST_AT, digest_of(api_key.encode()))
        self._move(now - self.now)

    @property
    def key_digest(self) -> bytes:
        """The digest of the application's API key."""
        return bytes(_DIGEST.unpack_from(self._shared, _DIGEST_AT)[0])

    @property
    def now(self) -> datetime:
        """The time of the application's wall clock."""
        wall, _ = _OFFSETS.unpack_from(self._shared)
        return _EPOCH + timedelta(microseconds=(time.time_ns() + wall) // 1000)

    def move_to(self, moment: datetime) -> None:
        """Move both clocks on to a time. Has no effect if it is past."""
        distance = moment - self.now
        if distance > timedelta(0):
            self._move(distance)

    def _move(self, distance: timedelta) -> None:
        wall, monotonic = _OFFSETS.unpack_from(self._shared)
        moved = distance // timedelta(microseconds=1) * 1000
        _OFFSETS.pack_into(self._shared, 0, wall + moved, monotonic + max(moved, 0))

    def set_moving(self, is_moving: bool) -> None:
        """Let waits look at the clocks more often while these move."""
        _IS_MOVING.pack_into(self._shared, _OFFSETS.size, is_moving)

    def hold_requests(self, seconds: float) -> None:
        """Let the application read nothing that others send to its servers, for a time in real seconds; 0 ends it."""
        _HELD_UNTIL.pack_into(self._shared, _HELD_UNTIL_AT, time.monotonic_ns() + int(seconds * 1e9) if seconds else 0)

    @property
    def processes(self) -> set[int]:
        """The processes that have followed the clocks; some may have ended."""
        return set(self.open_requests())

    def open_requests(self) -> dict[int, int]:
        """Return how many requests each process has sent to others that have no answer yet, and are still awaited."""
        round_now = _ROUND.unpack_from(self._shared, _ROUND_AT)[0] + 1
        found = _PROCESS.iter_unpack(self._shared[_PROCESSES_AT:_WAITS_AT])
        return {process: count & 0xFFFFFFFF if count >> 32 == round_now else 0 for process, count, _ in found if process}

    def unfinished_answers(self) -> set[int]:
        """Return the processes that have received an answer a moment ago, of which more may come."""
        now = time.monotonic_ns()
        found = _PROCESS.iter_unpack(self._shared[_PROCESSES_AT:_WAITS_AT])
        return {process for process, _, answers_until in found if process and answers_until > now}

    def give_up_requests(self) -> None:
        """Await the requests that are open now no longer, such as that of a stream of logs. Those that follow are awaited."""
        _ROUND.pack_into(self._shared, _ROUND_AT, _ROUND.unpack_from(self._shared, _ROUND_AT)[0] + 1)

    def waits(self) -> Iterator[Wait]:
        """Yield the waits that have a time limit."""
        _, offset = _OFFSETS.unpack_from(self._shared)
        now = time.monotonic_ns() + offset
        for thread, process, end, length in _WAIT.iter_unpack(self._shared[_WAITS_AT:_SIZE]):
            if thread and end:
                yield Wait(process, timedelta(microseconds=(end - now) // 1000), timedelta(microseconds=length // 1000))

    def forget(self, process: int) -> None:
        """Remove what a process that was killed has left."""
        for at in range(_PROCESSES_AT, _WAITS_AT, _PROCESS.size):
            if _PROCESS.unpack_from(self._shared, at)[0] == process:
                _PROCESS.pack_into(self._shared, at, 0, 0, 0)
        for at in range(_WAITS_AT, _SIZE, _WAIT.size):
            if _WAIT.unpack_from(self._shared, at)[1] == process:
                _WAIT.pack_into(self._shared, at, 0, 0, 0, 0)
