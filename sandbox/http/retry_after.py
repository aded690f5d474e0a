"""Parse Retry-After headers. Pure: the time is passed in."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

RETRY_AFTER_LIMIT = timedelta(hours=24)
"""Maximum wait that an endpoint can request with Retry-After."""


def parse_retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Parse a Retry-After header (RFC 9110, 10.2.3): seconds or an HTTP date. Return None if it is absent or invalid.

    A time in the past gives zero, one beyond RETRY_AFTER_LIMIT gives the limit. `now` matters for dates only. It is the real
    time even if the merchant's clock is frozen, because endpoints use the real time.
    """
    text = value.strip(" \t") if value is not None else ""
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit():
        if digits != text:
            return timedelta(0)
        # Check the length first. Otherwise an endpoint could keep the CPU busy with a megabyte of digits.
        digits = digits.lstrip("0")
        return RETRY_AFTER_LIMIT if len(digits) > 9 else _bounded(timedelta(seconds=int(digits or "0")))
    if not 16 <= len(text) <= 64 or not text.isascii():
        return None  # every form of an HTTP date fits these lengths
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # The asctime form has no zone and means UTC.
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    try:
        return _bounded(moment - now)
    except OverflowError:  # in UTC, the date is before year 1 or after year 9999
        return None


def _bounded(wait: timedelta) -> timedelta:
    return max(timedelta(0), min(wait, RETRY_AFTER_LIMIT))
