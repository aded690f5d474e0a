"""Times, and a merchant's clock. Pure: the host's time is passed in."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)\Z", re.ASCII)


def truncate(moment: datetime) -> datetime:
    """Round down to a whole millisecond, the precision of every time in the API."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def round_up(moment: datetime) -> datetime:
    """Round up to a whole millisecond: the earliest time that a clock shows once it has reached the moment."""
    return truncate(moment + timedelta(microseconds=999))


def milliseconds(moment: datetime) -> int:
    """Return milliseconds since the Unix epoch."""
    return (moment - _EPOCH) // _MILLISECOND


def render(moment: datetime) -> str:
    """Format as RFC 3339 in UTC, with milliseconds and `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def parse(text: str) -> datetime:
    """Parse an RFC 3339 time with an offset, and convert it to UTC. Raises ValueError for anything else."""
    if not _RFC3339.match(text):
        raise ValueError("must be an RFC 3339 time with an offset, such as 2026-01-31T12:00:00.000Z")
    return datetime.fromisoformat(text).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock that is frozen at a moment, or runs at an offset from the host's time."""

    frozen_at: datetime | None
    offset: timedelta

    def now(self, wall_now: datetime) -> datetime:
        """Return the merchant's time, in whole milliseconds, when the host's time is `wall_now`."""
        return truncate(self.frozen_at if self.frozen_at is not None else wall_now + self.offset)

    def moved(self, moment: datetime, wall_now: datetime) -> "Clock":
        """Return the clock set to `moment` when the host's time is `wall_now`; it stays frozen or running."""
        if self.frozen_at is not None:
            return Clock(moment, self.offset)
        return Clock(None, moment - wall_now)


RUNNING: Final = Clock(None, timedelta())
"""A clock that shows the host's time."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
