"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from psp_sandbox.client.literals import PayoutStatus
from psp_sandbox.client.models.shared import (
    Balance,
    DeliveryAttempt,
    PayoutStep,
    SaleAttempt,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """The duration of attempts in milliseconds: half of them took at most `p50_ms`, 95 % at most `p95_ms`."""

    p50_ms: int
    p95_ms: int
    max_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptBucket:
    """The attempts from `at` on, until the next bucket. `latency` is null without attempts."""

    at: datetime
    succeeded: int
    failed: int
    latency: Latency | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStatistics:
    """The attempts at the newest deliveries: of each at most the newest ten, and at most 2000 in all.

    Attempts that a fault prevented from being sent do not count. `since` is the time of the oldest attempt, null
    without attempts. `success_rate` is from 0 to 1. `buckets` are of equal width, oldest first, without gaps.
    """

    since: datetime | None
    succeeded: int
    failed: int
    success_rate: float | None
    latency: Latency | None
    bucket_seconds: int | None
    buckets: list[AttemptBucket]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCheck:
    """The result of one check. `problems` lists the first few violations, with their ids."""

    name: str
    ok: bool
    detail: str
    problems: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """All checks of a merchant's ledger; `ok` if all passed."""

    ok: bool
    checks: list[AuditCheck]


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancePoint:
    """The balance after a change, until the next point."""

    at: datetime
    available: Decimal
    locked: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Covers:
    """The rows that a statistic covers: the newest ones.

    `since` is the creation time of the oldest of them, null without rows. `is_complete` says that there are no
    older rows.
    """

    rows: int
    since: datetime | None
    is_complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceStatistics:
    """The balance over time, oldest first; the last point is the current balance. `covers` counts transfers."""

    covers: Covers
    currency: str
    points: list[BalancePoint]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryCount:
    """The number of webhook deliveries in a status."""

    status: Literal["FAILED", "PAUSED", "PENDING", "SUCCEEDED"]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryStatistics:
    """Webhook deliveries by their current status (every status), and the attempts at them."""

    covers: Covers
    by_status: list[DeliveryCount]
    attempts: AttemptStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """Whether all due work is done, and the steps that were run. Steps that workers had already started are not
    listed.
    """

    drained: bool
    now: datetime
    stopped_because: str | None
    steps: int
    ran: list[PayoutStep | SaleAttempt | DeliveryAttempt]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureTotal:
    """The number and the total amount of the payouts with a failure code."""

    failure_code: str
    count: int
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCount:
    """How many of all the merchant's payouts are in a status that is not final. If `is_capped` is true, there are
    more.
    """

    status: PayoutStatus
    count: int
    is_capped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusTotal:
    """The number and the total amount of the payouts in a status."""

    status: PayoutStatus
    count: int
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutStatistics:
    """Payouts by their current status (every status, also those without payouts) and by failure code (most frequent
    first).

    `open` does not depend on `covers`: it counts all payouts that are not final.
    """

    covers: Covers
    by_status: list[StatusTotal]
    by_failure_code: list[FailureTotal]
    open: list[OpenCount]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What happened lately and what is in progress. `now` is the merchant's time. All of it is from one moment."""

    now: datetime
    payouts: PayoutStatistics
    balance: BalanceStatistics
    deliveries: DeliveryStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """A merchant after a reset."""

    reset: bool
    balance: Balance


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The response to `POST /verify-account`."""

    valid: bool
    account_title: str | None
    reason: str | None
    dest_type: Literal["BANK", "WALLET"]
    bank_code: str | None
    wallet_code: str | None
    account_number: str
