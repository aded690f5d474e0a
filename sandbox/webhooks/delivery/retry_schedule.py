"""Decide when to attempt a delivery again, and what a response means.

Pure: the time and the jitter's seed are passed in. So a test can be repeated exactly, and retries follow a merchant's frozen or
advanced clock.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from types import MappingProxyType
from typing import Final, Literal

from sandbox.http.retry_after import RETRY_AFTER_LIMIT

Outcome = Literal["succeeded", "failed", "gone"]

_MICROSECOND = timedelta(microseconds=1)

SERVER_ERRORS: Final = "server_errors"
"""The profile whose endpoints get no second attempt after a 3xx or 4xx, and stay enabled after a 410."""
_FAST = tuple(timedelta(seconds=seconds) for seconds in (0, 1, 2, 4, 8, 16))

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
        "fast": _FAST,
        SERVER_ERRORS: _FAST,
    }
)
"""Profile → the wait before each attempt, counted from the end of the previous one."""

_JITTER_DIVISOR = 20
"""Jitter shortens a wait by up to a twentieth (5 %) and never lengthens it, so no schedule exceeds its profile."""
_OVERLOADED = frozenset({429, 502, 503, 504})


def next_attempt(
    profile: str, attempts_made: int, now: datetime, seed: str, retry_after: timedelta | None = None
) -> datetime | None:
    """Return the time of the next attempt, or None when the profile's attempts are used up.

    `attempts_made` counts finished attempts (0 for a new delivery, which is due immediately). `now` is when the last one ended,
    in the merchant's time. `seed`, the delivery's id, spreads deliveries that failed together. `retry_after` can make the
    attempt later, by at most RETRY_AFTER_LIMIT, but never earlier. Raises ValueError for an unknown profile or negative count.
    """
    waits = PROFILES.get(profile)
    if waits is None:
        raise ValueError(f"Unknown retry profile {profile!r}: use one of {', '.join(PROFILES)}.")
    if attempts_made < 0:
        raise ValueError("The number of attempts made cannot be negative.")
    if attempts_made >= len(waits):
        return None
    wait = _jittered(waits[attempts_made], seed, attempts_made + 1)
    if retry_after is not None:
        wait = max(wait, min(retry_after, RETRY_AFTER_LIMIT))
    return now + wait


def classify_response(status: int | None, profile: str = "standard") -> Outcome:
    """Return an attempt's outcome: 2xx succeeded, 410 gone (the endpoint wants no more deliveries), anything else failed.

    `status` is None if there was no response. A 3xx is a failure, because redirects are never followed.
    """
    if status is None:
        return "failed"
    if 200 <= status <= 299:
        return "succeeded"
    return "gone" if status == 410 and profile != SERVER_ERRORS else "failed"


def is_final(status: int | None, profile: str) -> bool:
    """Return whether the profile makes no further attempt after a response with this status."""
    return profile == SERVER_ERRORS and status is not None and 300 <= status <= 499


def slows_down(status: int | None) -> bool:
    """Return whether a response asks for fewer deliveries to the endpoint, not only for a retry of this one."""
    return status in _OVERLOADED


def _jittered(wait: timedelta, seed: str, attempt: int) -> timedelta:
    """Shorten a wait by 0 to 5 %, to whole microseconds. The share depends only on seed and attempt."""
    digest = sha256(f"{seed}:{attempt}".encode("utf-8", "surrogatepass")).digest()
    drawn = int.from_bytes(digest[:8], "big")
    microseconds = wait // _MICROSECOND
    return timedelta(microseconds=microseconds - microseconds * drawn // (_JITTER_DIVISOR << 64))
