"""A merchant's own time. Pure: the host's time is passed in."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)\Z", re.ASCII)


def truncate(moment: datetime) -> datetime:
    """Cut to whole milliseconds, the precision of every time on the wire."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def round_up(moment: datetime) -> datetime:
    """The first whole millisecond at or after the moment: the earliest reading of a clock that has reached it."""
    return truncate(moment + timedelta(microseconds=999))


def milliseconds(moment: datetime) -> int:
    """Milliseconds since the Unix epoch."""
    return (moment - _EPOCH) // _MILLISECOND


def render(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds and `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def parse(text: str) -> datetime:
    """An RFC 3339 time with its offset, in UTC. Raises ValueError for anything else."""
    if not _RFC3339.match(text):
        raise ValueError("must be an RFC 3339 time with an offset, such as 2026-01-31T12:00:00.000Z")
    return datetime.fromisoformat(text).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Clock:
    """Either frozen at a moment, or running at an offset from the host's time."""

    frozen_at: datetime | None
    offset: timedelta

    def now(self, real: datetime) -> datetime:
        """The merchant's now, in whole milliseconds, when the host's time is `real`."""
        return truncate(self.frozen_at if self.frozen_at is not None else real + self.offset)

    def moved(self, moment: datetime, real: datetime) -> "Clock":
        """The clock as it stands at `moment`, or runs on from it, when the host's time is `real`."""
        if self.frozen_at is not None:
            return Clock(moment, self.offset)
        return Clock(None, moment - real)


RUNNING: Final = Clock(None, timedelta())
"""The host's own time."""


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
