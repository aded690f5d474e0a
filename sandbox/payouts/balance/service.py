"""Read and top up a merchant's balance, and list its ledger entries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, get_args

import msgspec

from sandbox.domain.clock import render
from sandbox.domain.enumerations import Account
from sandbox.domain.errors import Problem
from sandbox.domain.fields import Amount
from sandbox.domain.ids import MAX_ID, MIN_ID
from sandbox.domain.ledger import AVAILABLE, LOCKED, MOVEMENTS, TOP_UP
from sandbox.domain.ledger_entry import ENTRY_COLUMNS, LedgerEntry, ledger_entries
from sandbox.domain.money import CURRENCY
from sandbox.domain.unit import NO_NEEDS, CommandResult, Needs, RequestContext, UnitOfWork
from sandbox.http.body import amount_of
from sandbox.http.operation import DATED_PAGE, get, parameter, post
from sandbox.http.paging import Page, PageWindow, page
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.shared_reads import SharedReads
from sandbox.infrastructure.db.statements import read_statements
from sandbox.unit_of_work.runner import UnitOfWorkRunner

_SQL: Final = read_statements(__name__, entry_columns=ENTRY_COLUMNS)

_BALANCE_MOVEMENTS: Final = {reason: m for reason, m in MOVEMENTS.items() if {m.debit, m.credit} & {AVAILABLE, LOCKED}}


class Balance(msgspec.Struct):
    """A merchant's balance: `balance` = `locked_balance` + `available_balance`."""

    currency: str
    balance: Decimal
    locked_balance: Decimal
    available_balance: Decimal
    version: int
    updated_at: str


class TopUpBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /balance/top-up`."""

    amount: Amount


@dataclass(frozen=True, slots=True)
class TopUp:
    """Add money to a merchant's available balance: 200 with the balance."""

    context: RequestContext
    amount: Decimal
    needs: Needs = NO_NEEDS

    def decide(self, unit: UnitOfWork) -> CommandResult:
        """Transfer the amount. Raises VALIDATION_ERROR if the balance would exceed MAX_BALANCE."""
        if unit.balances[AVAILABLE] + self.amount > MAX_BALANCE:
            raise Problem(
                "VALIDATION_ERROR",
                f"The balance would exceed {MAX_BALANCE}.",
                errors=[("amount", f"would bring the balance above {MAX_BALANCE}")],
            )
        unit.transfer(TOP_UP, self.amount, None, "top-up")
        available_balance, locked = unit.balances[AVAILABLE], unit.balances[LOCKED]
        # The version counts changes of the two accounts, including those of transfers that this unit has not written yet.
        version = unit.balance_version + sum(
            (p.transfer.movement.debit in (AVAILABLE, LOCKED)) + (p.transfer.movement.credit in (AVAILABLE, LOCKED))
            for p in unit.posted
        )
        balance = Balance(CURRENCY, available_balance + locked, locked, available_balance, version, unit.now_text)
        return CommandResult(200, msgspec.json.encode(balance))


MAX_BALANCE: Final = Decimal("99999999999999.99")


class BalanceService:
    """The operations on a merchant's balance."""

    def __init__(self, work: UnitOfWorkRunner) -> None:
        self._work = work
        self._reads = SharedReads(_read_balances)

    @get("/api/v1/balance", "Get the balance", {200: Balance}, psp="balance show")
    async def get_balance(self, merchant_id: str) -> Balance:
        """Return the balance as of the last commit. Raises NOT_FOUND if the merchant was deleted."""
        balance = await self._reads.get(merchant_id, merchant_id)
        assert balance is not None  # `read_balance` returns one or raises
        return balance

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
    async def list_ledger_entries(self, merchant_id: str, window: PageWindow, query: Mapping[str, str]) -> Page:
        """Return a page of ledger entries, newest first. `query` may have the filters payout_id and account."""
        accounts = [query["account"]] if "account" in query else [AVAILABLE, LOCKED]
        reasons = [reason for reason, m in _BALANCE_MOVEMENTS.items() if m.debit in accounts or m.credit in accounts]
        arguments: list[Any] = [reasons, window.before, window.since, window.limit + 2]
        statement = _SQL["history"]
        if "payout_id" in query:
            statement = _SQL["history_by_payout"]
            arguments.append(query["payout_id"])
        async with connection(merchant_id) as conn:
            records = await conn.fetch(statement, merchant_id, *arguments)
        entries = [entry for record in records for entry in ledger_entries(record) if entry.account in accounts]
        # A page may end between the two entries of a transfer. `:credit` comes before `:debit`.
        if window.suffix:
            position = f"{window.before}{window.suffix}"
            entries = [entry for entry in entries if _order(entry.id) > _order(position)]
        else:
            entries = [entry for entry in entries if entry.transfer_id < window.before]
        return page(entries, window.limit, [entry.id for entry in entries])

    @post(
        "/sandbox/v1/balance/top-up",
        "Top up the available balance",
        {200: Balance},
        TopUpBody,
        errors=("IDEMPOTENCY_KEY_REUSED",),
        example={"amount": "5000.00"},
        psp="balance top-up",
    )
    async def top_up_balance(self, context: RequestContext, body: TopUpBody) -> CommandResult:
        """Add money to the available balance: 200 with the balance, or 400 if it would exceed MAX_BALANCE."""
        return await self._work.submit(TopUp(context, amount_of(body.amount)))


async def _read_balances(merchant_id: str, _: Sequence[str]) -> Mapping[str, Balance]:
    """Return the merchant's balance by merchant id, for all requests that wait for it."""
    async with connection(merchant_id) as conn:
        return {merchant_id: await read_balance(conn, merchant_id)}


async def read_balance(conn: Connection, merchant_id: str) -> Balance:
    """Return the balance that this connection sees. Raises NOT_FOUND if the merchant was deleted."""
    records = await conn.fetch(_SQL["balance"], merchant_id)
    if len(records) != 2:
        raise Problem("NOT_FOUND", "This merchant was deleted.")
    available, locked = records
    return Balance(
        currency=CURRENCY,
        balance=available["balance"] + locked["balance"],
        locked_balance=locked["balance"],
        available_balance=available["balance"],
        version=available["version"] + locked["version"],
        updated_at=render(max(available["updated_at"], locked["updated_at"])),
    )


async def newest_transfers(conn: Connection, merchant_id: str, limit: int) -> Sequence[Mapping[str, Any]]:
    """Return the newest transfers that changed the balance, newest first, with ENTRY_COLUMNS."""
    found: Sequence[Mapping[str, Any]]
    found = await conn.fetch(_SQL["history"], merchant_id, list(_BALANCE_MOVEMENTS), MAX_ID, MIN_ID, limit)
    return found


def _order(entry_id: str) -> tuple[int, str]:
    """Return a sort key: newest transfer first, and within it the credit before the debit."""
    return -int(entry_id[:36].replace("-", ""), 16), entry_id[36:]
