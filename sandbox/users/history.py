"""List a wallet's ledger entries and a user's transactions of all types, newest first."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from sandbox.domain.clock import render
from sandbox.domain.enumerations import TransactionType
from sandbox.domain.ledger import ADVANCE, CLAW_BACK, CREDIT, FINAL, WALLET, WALLET_MOVEMENTS, wallet_of
from sandbox.domain.ledger_entry import ENTRY_COLUMNS, LedgerEntry, ledger_entries
from sandbox.http.paging import Page, PageWindow, page
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.users.commands import Transaction

TRANSACTION_TYPES: Final[tuple[TransactionType, ...]] = get_args(TransactionType)
_FROM_LEDGER: Final = {"CREDITED": (CREDIT,), "ADVANCE": (ADVANCE,), "FINAL": (FINAL, CLAW_BACK)}
"""The types that are read from the ledger. All other types have their own table, which the vendor feed also reads."""
_TYPE_OF: Final = {m.reason: kind for kind, movements in _FROM_LEDGER.items() for m in movements}

_REASONS: Final = [movement.reason for movement in WALLET_MOVEMENTS]
_SQL: Final = read_statements(__name__, entry_columns=ENTRY_COLUMNS)
_HISTORY: Final = _SQL["history"]
_HISTORY_BY_PAYOUT: Final = _SQL["history_by_payout"]
_TRANSACTIONS: Final = _SQL["transactions"]


async def wallet_entries(merchant_id: str, user_id: str, window: PageWindow, payout_id: str | None) -> Page:
    """Return a page of a wallet's ledger entries, newest first; with a `payout_id`, only its entries."""
    statement, argument = (_HISTORY, _REASONS) if payout_id is None else (_HISTORY_BY_PAYOUT, payout_id)
    async with connection(merchant_id) as conn:
        records = await conn.fetch(statement, merchant_id, user_id, window.before, window.since, window.limit + 1, argument)
    entries = [_shown(entry) for r in records for entry in ledger_entries(r) if entry.account == wallet_of(user_id)]
    return page(entries, window.limit, [entry.transfer_id for entry in entries])


async def transactions(merchant_id: str, user_id: str, window: PageWindow, types: Sequence[str]) -> Page:
    """Return a page of a user's transactions of these TRANSACTION_TYPES, newest first."""
    stored = [kind for kind in types if kind not in _FROM_LEDGER]
    reasons = [reason for reason, kind in _TYPE_OF.items() if kind in types]
    async with connection(merchant_id) as conn:
        records = await conn.fetch(
            _TRANSACTIONS, merchant_id, user_id, window.before, window.since, window.limit + 1, stored, reasons
        )
    found = [_transaction(user_id, record) for record in records]
    return page(found, window.limit, [transaction.id for transaction in found])


def _shown(entry: LedgerEntry) -> LedgerEntry:
    # The request's path already names the user, so the account is shown as WALLET, like AVAILABLE and LOCKED.
    entry.account = WALLET
    return entry


def _transaction(user_id: str, record: Mapping[str, Any]) -> Transaction:
    amount = record["amount"]
    return Transaction(
        id=record["id"],
        user_id=user_id,
        type=_TYPE_OF.get(record["kind"], record["kind"]),
        amount=-amount if record["kind"] == CLAW_BACK.reason else amount,
        reference=record["reference"],
        transfer_id=record["transfer_id"],
        payout_id=record["payout_id"],
        created_at=render(record["created_at"]),
    )
