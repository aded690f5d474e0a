"""When a delivery is tried again, and what an answer means.

Pure: the time, and what the jitter is drawn from, are passed in, so a run can be replayed exactly and a merchant's
frozen or advanced clock rules its retries. Source: the wire contract, section 3, "Retries"; the form (the next
time as a function of what was made) is River's retry policy.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import sha256
from types import MappingProxyType
from typing import Literal

Outcome = Literal["succeeded", "failed", "gone"]

_MICROSECOND = timedelta(microseconds=1)

PROFILES: Mapping[str, tuple[timedelta, ...]] = MappingProxyType(
    {
        "standard": (
            timedelta(0),
            timedelta(seconds=5),
            timedelta(minutes=5),
            timedelta(minutes=30),
            timedelta(hours=2),
            timedelta(hours=5),
            timedelta(hours=10),
            timedelta(hours=14),
            timedelta(hours=20),
            timedelta(hours=24),
        ),
        "fast": tuple(timedelta(seconds=seconds) for seconds in (0, 1, 2, 4, 8, 16)),
    }
)
"""For each profile the wait before each attempt, counted from the one before it."""

RETRY_AFTER_LIMIT = timedelta(hours=24)
"""The longest that an endpoint's Retry-After may put off the next attempt."""

_JITTER_SHARE = 20  # a twentieth: waits shrink by up to 5 %, never grow, so no schedule outlasts its profile
_SLOWING = frozenset({429, 502, 503, 504})


def next_attempt(
    profile: str, attempts_made: int, now: datetime, seed: str, retry_after: timedelta | None = None
) -> datetime | None:
    """Give the time of the next attempt, or None when the profile's attempts are used up.

    `attempts_made` counts the finished ones (0 for a new delivery, which is due at once), `now` is when the last
    of them ended, in the merchant's time; `seed` (the delivery's id) spreads deliveries that failed together.
    `retry_after` may make it later, at most by RETRY_AFTER_LIMIT, never earlier.
    ValueError for an unknown profile or a negative count.
    """
    waits = PROFILES.get(profile)
    if waits is None:
        raise ValueError(f"There is no retry profile {profile!r}: use one of {', '.join(PROFILES)}.")
    if attempts_made < 0:
        raise ValueError("The number of attempts made cannot be negative.")
    if attempts_made >= len(waits):
        return None
    wait = _jittered(waits[attempts_made], seed, attempts_made + 1)
    if retry_after is not None:
        wait = max(wait, min(retry_after, RETRY_AFTER_LIMIT))
    return now + wait


def parse_retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Read a Retry-After header: seconds or an HTTP date. None when it is absent or neither of the two.

    A time that is past gives zero, one beyond RETRY_AFTER_LIMIT gives the limit. `now` is needed for dates only
    and is the real time, also for a merchant whose own clock is frozen: the endpoint knows no other.
    Source: RFC 9110, section 10.2.3.
    """
    text = value.strip(" \t") if value is not None else ""
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit():
        if digits != text:
            return timedelta(0)
        # Bounded by its length first: int() of a megabyte of digits is work that a stranger would order.
        digits = digits.lstrip("0")
        return RETRY_AFTER_LIMIT if len(digits) > 9 else _bounded(timedelta(seconds=int(digits or "0")))
    if not 16 <= len(text) <= 64 or not text.isascii():
        return None  # no form of an HTTP date is shorter or longer
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # A date without a zone is UTC: the asctime form has none.
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    try:
        return _bounded(moment - now)
    except OverflowError:  # a zone that carries the year 1 or 9999 out of range
        return None


def judge(status: int | None) -> Outcome:
    """Say what an attempt came to: 2xx succeeded, 410 gone (the endpoint wants no more), all else failed.

    None stands for no answer at all. A 3xx is a failure: redirects are never followed.
    """
    if status is None:
        return "failed"
    if 200 <= status <= 299:
        return "succeeded"
    return "gone" if status == 410 else "failed"


def slows_down(status: int | None) -> bool:
    """Say whether an answer asks for fewer deliveries to its endpoint, not only for another try of this one."""
    return status in _SLOWING


def _jittered(wait: timedelta, seed: str, attempt: int) -> timedelta:
    """Shorten a wait by a share in [0, 5 %] that depends on seed and attempt only; in whole microseconds, exactly."""
    digest = sha256(f"{seed}:{attempt}".encode("utf-8", "surrogatepass")).digest()
    drawn = int.from_bytes(digest[:8], "big")
    microseconds = wait // _MICROSECOND
    return timedelta(microseconds=microseconds - microseconds * drawn // (_JITTER_SHARE << 64))


def _bounded(wait: timedelta) -> timedelta:
    return max(timedelta(0), min(wait, RETRY_AFTER_LIMIT))
