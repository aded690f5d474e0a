"""Read a merchant's overview: bounded statistics of its newest payouts, ledger entries and webhook deliveries."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from sandbox.domain.clock import Clock, render
from sandbox.domain.money import ZERO
from sandbox.domain.payout_states import HOLDS_FUNDS, STATUSES
from sandbox.http.operation import get
from sandbox.infrastructure.db.engine import consistent_read
from sandbox.infrastructure.db.shared_reads import SharedReads
from sandbox.infrastructure.db.statements import read_statements
from sandbox.payouts.balance.service import Balance, newest_transfers, read_balance
from sandbox.webhooks.deliveries import STATUSES as DELIVERY_STATUSES
from sandbox.webhooks.delivery.retry_schedule import classify_response
from sandbox.worlds.overview.statistics import (
    BalanceStatistics,
    DeliveryCount,
    DeliveryStatistics,
    FailureCount,
    FailureTotal,
    Movement,
    OpenCount,
    PayoutStatistics,
    SentAttempt,
    StatusTotal,
    attempt_statistics,
    balance_points,
    covers,
)

MAX_ROWS: Final = 1000
"""Maximum number of payouts, transfers or deliveries that a statistic covers, and of open payouts that are counted."""
_MAX_ATTEMPTS: Final = 2000
"""Maximum number of attempts that a statistic covers."""
_MAX_ATTEMPTS_OF_DELIVERY: Final = 10
"""Maximum number of attempts of one delivery that count. Resends add attempts without limit."""
_OPEN: Final = tuple(status for status in STATUSES if status in HOLDS_FUNDS)

_SQL: Final = read_statements(__name__)


class Overview(msgspec.Struct, kw_only=True):
    """What happened lately and what is in progress. `now` is the merchant's time. All of it is from one moment."""

    now: str
    payouts: PayoutStatistics
    balance: BalanceStatistics
    deliveries: DeliveryStatistics


class OverviewService:
    """Reads overviews. Requests that wait at the same time share one."""

    def __init__(self) -> None:
        self._reads = SharedReads(_read)

    @get(
        "/sandbox/v1/overview",
        "Get statistics of payouts, balance and webhooks",
        {200: Overview},
        takes_turns=True,
        description="Covers the newest 1000 payouts, the newest 1000 transfers of the balance and the newest 1000 webhook "
        "deliveries, so it costs the same however many there are. `covers` says how far back each part goes.",
        psp="overview",
    )
    async def get_overview(self, merchant_id: str) -> Overview:
        """Return the merchant's overview. Raises NOT_FOUND if the merchant was deleted."""
        found = await self._reads.get(merchant_id, merchant_id)
        assert found is not None  # `_read` returns one or raises
        return found


async def _read(merchant_id: str, _: Sequence[str]) -> Mapping[str, Overview]:
    # One snapshot, so that the balance is the one after the newest transfer.
    async with consistent_read(merchant_id) as conn:
        balance = await read_balance(conn, merchant_id)
        world = await conn.fetchrow(_SQL["clock"], merchant_id)
        assert world is not None  # `read_balance` found the merchant
        now = Clock(world["clock_frozen_at"], world["clock_offset"]).now(datetime.now(UTC))
        payouts = await conn.fetch(_SQL["payouts"], merchant_id, MAX_ROWS)
        open_payouts = await conn.fetch(_SQL["open_payouts"], merchant_id, _OPEN, MAX_ROWS + 1)
        transfers = await newest_transfers(conn, merchant_id, MAX_ROWS)
        by_status = await conn.fetch(_SQL["deliveries"], merchant_id, MAX_ROWS)
        attempts = await conn.fetch(_SQL["attempts"], merchant_id, MAX_ROWS, _MAX_ATTEMPTS_OF_DELIVERY, _MAX_ATTEMPTS)
    found = Overview(
        now=render(now),
        payouts=_payout_statistics(payouts, open_payouts),
        balance=_balance_statistics(transfers, balance, now),
        deliveries=_delivery_statistics(by_status, attempts),
    )
    return {merchant_id: found}


def _payout_statistics(records: Sequence[Mapping[str, Any]], open_counts: Sequence[Mapping[str, Any]]) -> PayoutStatistics:
    counts: dict[str, int] = defaultdict(int)
    amounts: dict[str, Decimal] = defaultdict(lambda: ZERO)
    failures: dict[str, FailureTotal] = {}
    by_destination: dict[tuple[str | None, str | None, str], int] = defaultdict(int)
    for record in records:
        counts[record["status"]] += record["count"]
        amounts[record["status"]] += record["amount"]
        if (code := record["failure_code"]) is not None:
            total = failures.setdefault(code, FailureTotal(code, 0, ZERO))
            total.count += record["count"]
            total.amount += record["amount"]
            by_destination[record["bank_code"], record["wallet_code"], code] += record["count"]
    since = min((record["since"] for record in records), default=None)
    return PayoutStatistics(
        covers=covers(sum(counts.values()), since, MAX_ROWS),
        by_status=[StatusTotal(status, counts[status], amounts[status]) for status in STATUSES],  # type: ignore[arg-type]  # a status
        by_failure_code=sorted(failures.values(), key=lambda total: (-total.count, total.failure_code)),
        by_destination_and_code=[
            FailureCount(bank_code=bank, wallet_code=wallet, failure_code=code, count=count)
            for (bank, wallet, code), count in sorted(by_destination.items(), key=lambda item: (-item[1], str(item[0])))
        ],
        open=[OpenCount(one["status"], min(one["count"], MAX_ROWS), one["count"] > MAX_ROWS) for one in open_counts],
    )


def _balance_statistics(transfers: Sequence[Mapping[str, Any]], balance: Balance, now: datetime) -> BalanceStatistics:
    moved = [Movement(t["created_at"], t["debit_account"], t["credit_account"], t["amount"]) for t in transfers]
    return BalanceStatistics(
        covers=covers(len(moved), moved[-1].at if moved else None, MAX_ROWS),
        currency=balance.currency,
        points=balance_points(moved, now, balance.available_balance, balance.locked_balance),
    )


def _delivery_statistics(by_status: Sequence[Mapping[str, Any]], attempts: Sequence[Mapping[str, Any]]) -> DeliveryStatistics:
    counts = {record["status"]: record["count"] for record in by_status}
    sent = [
        SentAttempt(a["at"], not a["has_error"] and classify_response(a["status"]) == "succeeded", a["duration_ms"])
        for a in attempts
    ]
    return DeliveryStatistics(
        covers=covers(sum(counts.values()), min((record["since"] for record in by_status), default=None), MAX_ROWS),
        by_status=[DeliveryCount(status, counts.get(status, 0)) for status in DELIVERY_STATUSES],
        attempts=attempt_statistics(sent),
    )
