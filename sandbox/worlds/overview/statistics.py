"""The overview's statistics, from the rows that they cover. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from math import ceil
from typing import Final, NamedTuple

import msgspec

from sandbox.domain.clock import milliseconds, render
from sandbox.domain.enumerations import DeliveryStatus, PayoutStatus
from sandbox.domain.ledger import AVAILABLE, LOCKED

MAX_POINTS: Final = 60
"""Maximum number of points of the balance."""
MAX_BUCKETS: Final = 30
"""Maximum number of buckets of delivery attempts."""
_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00Z")
_SECOND, _MINUTE, _HOUR, _DAY = 1000, 60_000, 3_600_000, 86_400_000
_WIDTHS: Final = (
    *(n * _SECOND for n in (1, 2, 5, 10, 15, 30)),
    *(n * _MINUTE for n in (1, 2, 5, 10, 15, 30)),
    *(n * _HOUR for n in (1, 2, 3, 6, 12)),
)
"""Widths of buckets in milliseconds, below a day."""


class Covers(msgspec.Struct):
    """The rows that a statistic covers: the newest ones.

    `since` is the creation time of the oldest of them, null without rows. `is_complete` says that there are no older rows.
    """

    rows: int
    since: str | None
    is_complete: bool


class StatusTotal(msgspec.Struct):
    """The number and the total amount of the payouts in a status."""

    status: PayoutStatus
    count: int
    amount: Decimal


class FailureTotal(msgspec.Struct):
    """The number and the total amount of the payouts with a failure code."""

    failure_code: str
    count: int
    amount: Decimal


class FailureCount(msgspec.Struct, kw_only=True):
    """The number of payouts to a bank or a wallet that have a failure code."""

    bank_code: str | None
    wallet_code: str | None
    failure_code: str
    count: int


class OpenCount(msgspec.Struct):
    """How many of all the merchant's payouts are in a status that is not final. If `is_capped` is true, there are more."""

    status: PayoutStatus
    count: int
    is_capped: bool


class PayoutStatistics(msgspec.Struct, kw_only=True):
    """Payouts by their current status (every status, also those without payouts), by failure code, and by bank or wallet and
    failure code (most frequent first).

    `open` does not depend on `covers`: it counts all payouts that are not final.
    """

    covers: Covers
    by_status: list[StatusTotal]
    by_failure_code: list[FailureTotal]
    by_destination_and_code: list[FailureCount]
    open: list[OpenCount]


class BalancePoint(msgspec.Struct):
    """The balance after a change, until the next point."""

    at: str
    available: Decimal
    locked: Decimal


class BalanceStatistics(msgspec.Struct, kw_only=True):
    """The balance over time, oldest first; the last point is the current balance. `covers` counts transfers."""

    covers: Covers
    currency: str
    points: list[BalancePoint]


class DeliveryCount(msgspec.Struct):
    """The number of webhook deliveries in a status."""

    status: DeliveryStatus
    count: int


class Latency(msgspec.Struct):
    """The duration of attempts in milliseconds: half of them took at most `p50_ms`, 95 % at most `p95_ms`."""

    p50_ms: int
    p95_ms: int
    max_ms: int


class AttemptBucket(msgspec.Struct):
    """The attempts from `at` on, until the next bucket. `latency` is null without attempts."""

    at: str
    succeeded: int
    failed: int
    latency: Latency | None


class AttemptStatistics(msgspec.Struct, kw_only=True):
    """The attempts at the newest deliveries: of each at most the newest ten, and at most 2000 in all.

    Attempts that a fault prevented from being sent do not count. `since` is the time of the oldest attempt, null without
    attempts. `success_rate` is from 0 to 1. `buckets` are of equal width, oldest first, without gaps.
    """

    since: str | None
    succeeded: int
    failed: int
    success_rate: float | None
    latency: Latency | None
    bucket_seconds: int | None
    buckets: list[AttemptBucket]


class DeliveryStatistics(msgspec.Struct, kw_only=True):
    """Webhook deliveries by their current status (every status), and the attempts at them."""

    covers: Covers
    by_status: list[DeliveryCount]
    attempts: AttemptStatistics


class SentAttempt(NamedTuple):
    """A delivery attempt: when, in the merchant's time; its outcome and its duration."""

    at: datetime
    is_success: bool
    duration_ms: int


class Movement(NamedTuple):
    """A transfer that changed the balance."""

    at: datetime
    debit: str
    credit: str
    amount: Decimal


def covers(rows: int, since: datetime | None, limit: int) -> Covers:
    """Return the rows that a statistic of at most `limit` rows covers. It is complete if it has fewer."""
    return Covers(rows, None if since is None else render(since), rows < limit)


def balance_points(newest: Sequence[Movement], now: datetime, available: Decimal, locked: Decimal) -> list[BalancePoint]:
    """Return at most MAX_POINTS points, oldest first, that end with the current balance.

    `newest` are the last movements, newest first. Without any, the only point is the current balance, at `now`.
    """
    balances = {AVAILABLE: available, LOCKED: locked}
    states = [(now, available, locked)] if not newest else []
    for moved in newest:
        states.append((moved.at, balances[AVAILABLE], balances[LOCKED]))
        # Undo the movement, to get the balance before it.
        if moved.debit in balances:
            balances[moved.debit] += moved.amount
        if moved.credit in balances:
            balances[moved.credit] -= moved.amount
    states.reverse()
    if len(states) > MAX_POINTS:
        last = len(states) - 1
        states = [states[position * last // (MAX_POINTS - 1)] for position in range(MAX_POINTS)]
    return [BalancePoint(render(at), *state) for at, *state in states]


def attempt_statistics(attempts: Iterable[SentAttempt]) -> AttemptStatistics:
    """Return the statistics of attempts in any order."""
    found = sorted(attempts)
    if not found:
        return AttemptStatistics(
            since=None, succeeded=0, failed=0, success_rate=None, latency=None, bucket_seconds=None, buckets=[]
        )
    succeeded = sum(attempt.is_success for attempt in found)
    width = _bucket_width(milliseconds(found[0].at), milliseconds(found[-1].at))
    first, last = milliseconds(found[0].at) // width, milliseconds(found[-1].at) // width
    buckets: list[list[SentAttempt]] = [[] for _ in range(last - first + 1)]
    for attempt in found:
        buckets[milliseconds(attempt.at) // width - first].append(attempt)
    return AttemptStatistics(
        since=render(found[0].at),
        succeeded=succeeded,
        failed=len(found) - succeeded,
        success_rate=round(succeeded / len(found), 4),
        latency=_latency(found),
        bucket_seconds=width // _SECOND,
        buckets=[_bucket((first + position) * width, inside) for position, inside in enumerate(buckets)],
    )


def _bucket_width(first: int, last: int) -> int:
    """Return the smallest width with at most MAX_BUCKETS buckets from `first` to `last`; all in milliseconds."""
    for width in _WIDTHS:
        if last // width - first // width < MAX_BUCKETS:
            return width
    return next(days * _DAY for days in count(1) if last // (days * _DAY) - first // (days * _DAY) < MAX_BUCKETS)


def _bucket(start: int, attempts: Sequence[SentAttempt]) -> AttemptBucket:
    succeeded = sum(attempt.is_success for attempt in attempts)
    at = render(_EPOCH + timedelta(milliseconds=start))
    return AttemptBucket(at, succeeded, len(attempts) - succeeded, _latency(attempts))


def _latency(attempts: Sequence[SentAttempt]) -> Latency | None:
    if not attempts:
        return None
    durations = sorted(attempt.duration_ms for attempt in attempts)
    p50, p95 = (durations[ceil(len(durations) * percent / 100) - 1] for percent in (50, 95))
    return Latency(p50, p95, durations[-1])
