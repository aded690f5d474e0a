"""The operations on the balance: `/api/v1/balance`, and the top-up in `/sandbox/v1/balance`."""

from typing import get_args

import msgspec

from sandbox.balance.service import Balance, BalanceService
from sandbox.domain.body import amount_of
from sandbox.domain.choices import Account
from sandbox.domain.fields import Amount
from sandbox.domain.ledger_entry import LedgerEntry
from sandbox.domain.unit import CommandResult
from sandbox.http.operation import DATED_PAGE, get, parameter, post
from sandbox.http.paging import Page, window
from sandbox.http.request import Request


class TopUpBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /balance/top-up`."""

    amount: Amount


class BalanceApi:
    """The operations on the merchant's balance."""

    def __init__(self, balance: BalanceService) -> None:
        self._balance = balance

    @get("/api/v1/balance", "Get the balance", {200: Balance}, psp="balance show")
    async def get_balance(self, request: Request) -> Balance:
        return await self._balance.get(request.merchant_id)

    @get(
        "/api/v1/balance/history",
        "List ledger entries, newest first",
        {200: list[LedgerEntry]},
        query=(
            *DATED_PAGE,
            parameter("payout_id", "Only entries for this payout.", type="string", format="uuid"),
            parameter("account", "Only entries on this account.", type="string", enum=list(get_args(Account))),
        ),
        psp="balance history",
        columns="created_at account direction amount balance_after reason payout_id",
    )
    async def list_ledger_entries(self, request: Request) -> Page:
        return await self._balance.history(request.merchant_id, window(request.query), request.query)

    @post(
        "/sandbox/v1/balance/top-up",
        "Top up the available balance",
        {200: Balance},
        TopUpBody,
        errors=("IDEMPOTENCY_KEY_REUSED",),
        example={"amount": "5000.00"},
        psp="balance top-up",
    )
    async def top_up_balance(self, request: Request, body: TopUpBody) -> CommandResult:
        return await self._balance.top_up(request.context, amount_of(body.amount))
