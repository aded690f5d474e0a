"""Show users' wallets: their totals, ledger entries and transactions of all types."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, get_args

import msgspec

from sandbox.domain.enumerations import TransactionType
from sandbox.domain.fields import Uuid
from sandbox.domain.ledger import ADVANCE, CLAW_BACK, CREDIT, FINAL, WALLET, WALLET_MOVEMENTS, wallet_of
from sandbox.domain.ledger_entry import ENTRY_COLUMNS, LedgerEntry, ledger_entries
from sandbox.domain.money import CURRENCY
from sandbox.domain.shown import shown
from sandbox.domain.user import UserRow
from sandbox.http.operation import DATED_PAGE, get, parameter
from sandbox.http.paging import Page, PageWindow, page, selected
from sandbox.http.responses import Response
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.users.commands import Transaction
from sandbox.users.service import read_user
from sandbox.users.summary_cache import CacheMiss, SummaryCache

TRANSACTION_TYPES: Final[tuple[TransactionType, ...]] = get_args(TransactionType)
_FROM_LEDGER: Final = {"CREDITED": (CREDIT,), "ADVANCE": (ADVANCE,), "FINAL": (FINAL, CLAW_BACK)}
"""The types that are read from the ledger. All other types have their own table, which the vendor feed also reads."""
_TYPE_OF: Final = {m.reason: kind for kind, movements in _FROM_LEDGER.items() for m in movements}

_REASONS: Final = [movement.reason for movement in WALLET_MOVEMENTS]
_SQL: Final = read_statements(__name__, entry_columns=ENTRY_COLUMNS)


class Summary(msgspec.Struct):
    """The totals of a user's wallet.

    `balance` = earned + credited + advances + finals − spent − payout_approved − payout_paid. `available` = balance −
    payout_requested: the amount that can still be paid out.
    """

    user_id: str
    currency: str
    balance: Decimal
    earned: Decimal
    spent: Decimal
    credited: Decimal
    advances: Decimal
    finals: Decimal
    payout_requested: Decimal
    payout_approved: Decimal
    payout_paid: Decimal
    available: Decimal


class UserBalance(msgspec.Struct):
    """The balance of a user's wallet, and the part of it that can still be paid out."""

    user_id: str
    balance: Decimal
    available: Decimal


class WalletService:
    """The operations that read users' wallets."""

    def __init__(self, cache: SummaryCache) -> None:
        self._cache = cache

    @get(
        "/api/v1/users/{user_id}/transactions",
        "List a user's transactions, newest first",
        {200: list[Transaction]},
        query=(
            *DATED_PAGE,
            parameter("type", "Only transactions of this type.", type="string", enum=list(TRANSACTION_TYPES)),
        ),
        description="All types: earned, spent, credited in bulk, paid for sales (a negative FINAL is a claw-back), requested "
        "(PAYOUT) and paid (PAID_OUT). A payout that ends unpaid adds transactions with negative amounts.",
        psp="users transactions",
        columns="created_at type amount reference payout_id transfer_id",
    )
    async def list_user_transactions(
        self, merchant_id: str, user_id: Uuid, window: PageWindow, query: Mapping[str, str]
    ) -> Page:
        """Return a page of a user's transactions, newest first. Raises NOT_FOUND."""
        await read_user(merchant_id, user_id)
        types = selected(query, "type", TRANSACTION_TYPES)
        stored = [kind for kind in types if kind not in _FROM_LEDGER]
        reasons = [reason for reason, kind in _TYPE_OF.items() if kind in types]
        async with connection(merchant_id) as conn:
            records = await conn.fetch(
                _SQL["transactions"], merchant_id, user_id, window.before, window.since, window.limit + 1, stored, reasons
            )
        found = [_transaction(user_id, record) for record in records]
        return page(found, window.limit, [transaction.id for transaction in found])

    @get(
        "/api/v1/users/{user_id}/history",
        "List the ledger entries of a user's wallet, newest first",
        {200: list[LedgerEntry]},
        query=(
            *DATED_PAGE,
            parameter("payout_id", "Only entries for this payout.", type="string", format="uuid"),
        ),
        description="`balance_after` of the newest entry is the wallet's balance.",
        psp="users history",
        columns="created_at reason direction amount balance_after payout_id transfer_id",
    )
    async def list_wallet_entries(self, merchant_id: str, user_id: Uuid, window: PageWindow, query: Mapping[str, str]) -> Page:
        """Return a page of a wallet's ledger entries, newest first. Raises NOT_FOUND."""
        await read_user(merchant_id, user_id)
        payout_id = query.get("payout_id")
        statement, argument = (_SQL["history"], _REASONS) if payout_id is None else (_SQL["history_by_payout"], payout_id)
        async with connection(merchant_id) as conn:
            records = await conn.fetch(statement, merchant_id, user_id, window.before, window.since, window.limit + 1, argument)
        entries = [_shown(entry) for r in records for entry in ledger_entries(r) if entry.account == wallet_of(user_id)]
        return page(entries, window.limit, [entry.transfer_id for entry in entries])

    @get(
        "/api/v1/users/{user_id}/summary",
        "Get the totals of a user's wallet",
        {200: Summary},
        description="Cached for two minutes, or until a change. The `X-Cache` response header is HIT or MISS.",
        psp="users summary",
    )
    async def get_user_summary(self, merchant_id: str, user_id: Uuid) -> Response:
        """Return a user's summary, from the cache if it is there. Raises NOT_FOUND."""
        cached = await self._cache.get(merchant_id, user_id)
        if isinstance(cached, bytes):
            return _summary_response(cached, "HIT")
        user = await read_user(merchant_id, user_id)
        summary = msgspec.json.encode(_summary(user))
        if isinstance(cached, CacheMiss):
            await self._cache.fill(merchant_id, user_id, cached, user.version, summary)
        return _summary_response(summary, "MISS")

    @get("/api/v1/users/{user_id}/balance", "Get the balance of a user's wallet", {200: UserBalance}, psp="users balance")
    async def get_user_balance(self, merchant_id: str, user_id: Uuid) -> UserBalance:
        """Return a user's balance as of the last commit. Raises NOT_FOUND."""
        user = await read_user(merchant_id, user_id)
        return UserBalance(user.id, user.balance, user.available)


def _summary_response(summary: bytes, cache: str) -> Response:
    return Response(200, summary, headers=[("x-cache", cache)])


def _summary(user: UserRow) -> Summary:
    return Summary(
        user_id=user.id,
        currency=CURRENCY,
        balance=user.balance,
        earned=user.earned,
        spent=user.spent,
        credited=user.credited,
        advances=user.advances,
        finals=user.finals,
        payout_requested=user.requested,
        payout_approved=user.approved,
        payout_paid=user.paid,
        available=user.available,
    )


def _shown(entry: LedgerEntry) -> LedgerEntry:
    # The request's path already names the user, so the account is shown as WALLET, like AVAILABLE and LOCKED.
    entry.account = WALLET
    return entry


def _transaction(user_id: str, record: Mapping[str, Any]) -> Transaction:
    amount = record["amount"]
    if record["kind"] == CLAW_BACK.reason:
        amount = -amount
    return shown(Transaction, record, user_id=user_id, type=_TYPE_OF.get(record["kind"], record["kind"]), amount=amount)
