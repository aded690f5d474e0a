"""Types that the methods of a world take and return."""

import re
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from psp_sandbox.testing.options import UsageError

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)\s*")


@dataclass(frozen=True, slots=True)
class Balance:
    """A merchant's balance."""

    available: Decimal
    locked: Decimal
    total: Decimal
    currency: str


def seconds_of(duration: Any) -> float:
    """Return a duration in seconds: from a number of seconds, a timedelta, or text such as "60s" or "1h 30m".

    Raises UsageError.
    """
    seconds: float | None = None
    if isinstance(duration, timedelta):
        seconds = duration.total_seconds()
    elif isinstance(duration, int | float) and not isinstance(duration, bool):
        seconds = float(duration)
    elif isinstance(duration, str) and duration.strip():
        parts = list(_DURATION.finditer(duration.strip()))
        if "".join(part.group() for part in parts) == duration.strip():
            seconds = sum(float(part[1]) * _UNITS[part[2]] for part in parts)
    if seconds is None or not 0 <= seconds < float("inf"):
        raise UsageError(
            f'{duration!r} is not a duration. Write "60s", "5m", "2h", "1d" or "1h 30m", a number of seconds or a timedelta.'
        )
    return seconds
