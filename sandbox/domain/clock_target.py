"""Times that a clock may be moved to. Pure."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from sandbox.domain.clock import parse, render, truncate
from sandbox.domain.errors import invalid

FURTHEST: Final = timedelta(days=3653)
"""How far one request may put a clock forward: ten years by the calendar, with up to three leap days."""

Target = Callable[[datetime], datetime]
"""The merchant's now → the time to pass to, not before it. Raises VALIDATION_ERROR."""


def seconds_on(seconds: float) -> Target:
    """So many seconds from now."""
    return lambda now: now + timedelta(seconds=seconds)


def moment(text: str, field: str, *, may_be_past: bool = False) -> Target:
    """The time that the text says. Raises VALIDATION_ERROR, naming `field`, if it says none, or one before 1970; the target
    raises it if the time is too far on, or past and not allowed to be.
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
        if at > now + FURTHEST:
            raise invalid(field, f"must be at most ten years after the merchant's current time, {render(now)}")
        return at

    return target
