"""Decide which deliveries a paced endpoint may receive now: its order, its rate limit and its calls in progress. Pure.

**Rate.** An endpoint has one sequence of start times (slots), `SPACING` / rate_limit apart, whichever worker takes them.
A claim takes slots up to `HORIZON` ahead, so that one claim serves many attempts. An attempt never starts before its slot, so
there are no bursts: any `rate_limit + 1` slots in a row span at least `SPACING`, which is a little more than a second, because
attempts start late by different amounts. A process also never starts more than `rate_limit` attempts in a second. So only if
there are several workers, and one of them stalls, a second can contain more: the slots of up to `HORIZON` that it had taken.

**Order.** A delivery waits while an earlier event of its payout has a pending delivery to the same endpoint (a blocker).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

SPACING: Final = timedelta(seconds=1.05)
"""The time between `rate_limit` slots."""
HORIZON: Final = timedelta(seconds=0.1)
"""How far ahead a claim takes slots."""
_RECHECK: Final = HORIZON / 2
_MICROSECOND: Final = timedelta(microseconds=1)
_MAX_WAIT_AFTER_ATTEMPT: Final = timedelta(minutes=1)
"""How long a delivery that has been attempted waits for a blocker before it is examined again. See `waits_until`."""


class Slot(NamedTuple):
    """When an attempt may start, in the host's time, and how many attempts may start in a second."""

    starts_at: datetime
    rate_limit: int


class Slots:
    """The free slots of an endpoint with a rate limit. All times are the host's."""

    def __init__(self, rate_limit: int, free_at: datetime | None, now: datetime) -> None:
        """`rate_limit` is in attempts per second. `free_at` is the next free slot as stored, None before the first attempt."""
        self._rate_limit = rate_limit
        self._interval = SPACING / rate_limit
        self._now = now
        # A later time is that of a lower limit, or of a host clock that was set back since.
        latest = now + HORIZON + self._interval
        self.free_at = now if free_at is None else min(max(free_at, now), latest)
        """The next free slot."""

    @property
    def count(self) -> int:
        """The number of slots that can be taken now."""
        return max(0, -((self.free_at - self._now - HORIZON) // self._interval))

    def take(self, count: int) -> list[Slot]:
        """Take the next slots. `count` must not exceed `self.count`."""
        taken = [Slot(self.free_at + index * self._interval, self._rate_limit) for index in range(count)]
        self.free_at += count * self._interval
        return taken

    def seconds_until_more(self) -> float:
        """Return in how many seconds a claim can take several slots again, or the next one if they are far apart."""
        return max(timedelta(0), self.free_at - _RECHECK - self._now).total_seconds()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A due delivery that no process is sending.

    `blockers` are the pending deliveries of earlier events of its payout. `blocked_until` is the latest time at which one of
    them is due or its lease expires, in the merchant's time.
    """

    id: str
    payout_id: str | None = None
    blockers: Collection[str] = ()
    blocked_until: datetime | None = None
    is_attempted: bool = False
    """Whether an attempt was made since the delivery was created or resent."""


def choose(candidates: Sequence[Candidate], limit: int, in_sequence: bool) -> tuple[list[Candidate], list[Candidate]]:
    """Return the candidates to send now, at most `limit`, and those that must wait for a blocker.

    With `in_sequence`, the chosen ones are sent one after the other until one fails, so blockers chosen earlier do not count.
    """
    chosen: list[Candidate] = []
    waiting: list[Candidate] = []
    chosen_ids: set[str] = set()
    for candidate in candidates:
        if not (chosen_ids.issuperset(candidate.blockers) if in_sequence else not candidate.blockers):
            waiting.append(candidate)
        elif len(chosen) < limit:
            chosen.append(candidate)
            chosen_ids.add(candidate.id)
    return chosen, waiting


def waits_until(candidate: Candidate, now: datetime) -> datetime:
    """Return when to examine a waiting candidate again, in the merchant's time: after its blockers.

    It becomes the candidate's due time, so that claims do not read it again and again. If the blocker succeeds earlier, the
    candidate is released, but not if it was attempted: then its due time may be that of its own retry. So it waits only a
    minute at a time.
    """
    until = now if candidate.blocked_until is None else candidate.blocked_until + _MICROSECOND
    return min(until, now + _MAX_WAIT_AFTER_ATTEMPT) if candidate.is_attempted else until
