"""The time that a request moves a clock to. Pure."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from sandbox.domain.clock import parse, render, truncate
from sandbox.domain.errors import invalid

MAX_ADVANCE: Final = timedelta(days=3653)
"""How far one request may advance a clock: ten calendar years, with up to three leap days."""

TargetFn = Callable[[datetime], datetime]
"""A function from the merchant's current time to the time to set. Raises VALIDATION_ERROR."""


def seconds_ahead(seconds: float) -> TargetFn:
    """Return a function whose target is that many seconds after the merchant's current time."""
    return lambda now: now + timedelta(seconds=seconds)


def moment(text: str, field: str, *, may_be_past: bool = False) -> TargetFn:
    """Return a function whose target is the given RFC 3339 time.

    Raises VALIDATION_ERROR for `field` if the text is not a time or is before 1970. The returned function raises it if the time
    is more than MAX_ADVANCE ahead, or is in the past and `may_be_past` is false.
    """
    try:
        at = truncate(parse(text))
    except (ValueError, OverflowError):
        raise invalid(field, "must be an RFC 3339 time with an offset, such as 2026-01-31T12:00:00.000Z") from None

    if at.year < 1970:
        raise invalid(field, "must not be before 1970")

    def target(now: datetime) -> datetime:
        if at < now and not may_be_past:
            raise invalid(field, f"must not be before the merchant's current time, {render(now)}: a clock never goes back")
        if at > now + MAX_ADVANCE:
            raise invalid(field, f"must be at most ten years after the merchant's current time, {render(now)}")
        return at

    return target
