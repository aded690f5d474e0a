"""Sum up the money that moved between a merchant's accounts, day by day."""

from collections.abc import Mapping
from decimal import Decimal
from itertools import groupby
from typing import Any, Final, Literal

import msgspec

from sandbox.domain.clock import render
from sandbox.domain.money import CURRENCY
from sandbox.http.operation import CREATED_FROM, CREATED_TO, get
from sandbox.http.paging import PageWindow
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements

MAX_TRANSFERS: Final = 10_000
"""How many transfers the sums cover, the newest."""
MAX_DAYS: Final = 31
_MAX_FLOWS: Final = 10
"""How many pairs of accounts a day can have at most: each kind of transfer has one, and many share theirs."""

_FLOWS: Final = read_statements(__name__)["flows"]

AnyAccount = Literal["FUNDING", "AVAILABLE", "LOCKED", "SETTLEMENT", "USER_FUNDS", "WALLET"]
"""`FUNDING` is where top-ups come from, `SETTLEMENT` what the bank was paid, and `WALLET` stands for all wallets of users."""


class Flow(msgspec.Struct, kw_only=True):
    """The transfers of a day from one account to another: how many, and their sum."""

    from_account: AnyAccount
    to_account: AnyAccount
    count: int
    amount: Decimal


class DayOfFlows(msgspec.Struct):
    """The flows of a day of the merchant's time, in UTC."""

    day: str
    flows: list[Flow]


class Flows(msgspec.Struct, kw_only=True):
    """The newest days on which money moved, newest first.

    They cover at most 10,000 transfers and 31 days. `since` is the time of the oldest covered transfer, null without any. If
    `is_complete` is false, older transfers are left out, perhaps some of the last day too.
    """

    currency: str
    since: str | None
    is_complete: bool
    days: list[DayOfFlows]


class FlowService:
    """Reads flows of money."""

    @get(
        "/sandbox/v1/balance/flows",
        "Sum up the money between accounts, per day",
        {200: Flows},
        query=(CREATED_FROM, CREATED_TO),
        description="The newest days first. All wallets of users are one account, `WALLET`.",
        psp="balance flows",
    )
    async def get_balance_flows(self, merchant_id: str, window: PageWindow) -> Flows:
        """Return the sums of the merchant's newest transfers."""
        most = MAX_DAYS * _MAX_FLOWS
        async with connection(merchant_id) as conn:
            records = await conn.fetch(_FLOWS, merchant_id, window.since, window.before, MAX_TRANSFERS, most)
        by_day = [(day, list(found)) for day, found in groupby(records, lambda one: one["day"])]
        shown = by_day[:MAX_DAYS]
        return Flows(
            currency=CURRENCY,
            since=render(min(one["since"] for one in shown[-1][1])) if shown else None,
            is_complete=sum(one["count"] for one in records) < MAX_TRANSFERS and len(shown) == len(by_day),
            days=[DayOfFlows(day, [_flow(one) for one in found]) for day, found in shown],
        )


def _flow(record: Mapping[str, Any]) -> Flow:
    return Flow(**{name: record[name] for name in ("from_account", "to_account", "count", "amount")})
