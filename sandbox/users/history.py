"""List a wallet's ledger entries and a user's transactions of all types, newest first."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from sandbox.db.engine import connection
from sandbox.domain.choices import TransactionType
from sandbox.domain.clock import render
from sandbox.domain.ledger import ADVANCE, CLAW_BACK, CREDIT, FINAL, WALLET, WALLET_MOVEMENTS, wallet_of
from sandbox.domain.ledger_entry import ENTRY_COLUMNS, LedgerEntry, ledger_entries
from sandbox.domain.user_commands import Transaction
from sandbox.http.paging import Page, PageWindow, page

TRANSACTION_TYPES: Final[tuple[TransactionType, ...]] = get_args(TransactionType)
_FROM_LEDGER: Final = {"CREDITED": (CREDIT,), "ADVANCE": (ADVANCE,), "FINAL": (FINAL, CLAW_BACK)}
"""The types that are read from the ledger. All other types have their own table, which the vendor feed also reads."""
_TYPE_OF: Final = {m.reason: kind for kind, movements in _FROM_LEDGER.items() for m in movements}

_REASONS: Final = [movement.reason for movement in WALLET_MOVEMENTS]
# The expression and the condition of the wallet index, verbatim: the planner uses the index only for exactly these.
_USER: Final = "(right(CASE WHEN debit_account = 'USER_FUNDS' THEN credit_account ELSE debit_account END, 36)::uuid)"
_IS_WALLET_ENTRY: Final = "reason IN (" + ", ".join(f"'{reason}'" for reason in _REASONS) + ")"
# Each reason is a range of the index, ordered by id. So a page reads at most 8 × limit rows.
_RANGE: Final = f"""
    FROM transfers WHERE merchant_id = $1 AND ({_USER}, reason, id) < ($2::uuid, r.reason, $3::uuid)
        AND ({_USER}, reason, id) >= ($2::uuid, r.reason, $4::uuid) AND {_IS_WALLET_ENTRY}
    ORDER BY merchant_id DESC, {_USER} DESC, reason DESC, transfers.id DESC LIMIT $5
"""
_HISTORY: Final = f"""
SELECT t.* FROM unnest($6::text[]) AS r (reason) CROSS JOIN LATERAL (SELECT {ENTRY_COLUMNS} {_RANGE}) t
ORDER BY transfer_id DESC LIMIT $5
"""  # noqa: S608 -- constants
_HISTORY_BY_PAYOUT: Final = f"""
SELECT {ENTRY_COLUMNS} FROM transfers WHERE merchant_id = $1 AND payout_id = $6 AND id < $3 AND id >= $4
    AND $2::uuid = {_USER} AND {_IS_WALLET_ENTRY}
ORDER BY merchant_id, payout_id, transfers.id DESC LIMIT $5
"""  # noqa: S608 -- constants
_TRANSACTIONS: Final = f"""
SELECT * FROM (
    SELECT t.* FROM unnest($6::text[]) AS k (type) CROSS JOIN LATERAL (
        SELECT id::text AS id, type AS kind, amount, reference, transfer_id::text, payout_id::text, created_at
        FROM user_transactions WHERE merchant_id = $1 AND (user_id, type, id) < ($2::uuid, k.type, $3::uuid)
            AND (user_id, type, id) >= ($2::uuid, k.type, $4::uuid)
        ORDER BY merchant_id DESC, user_id DESC, type DESC, user_transactions.id DESC LIMIT $5
    ) t
    UNION ALL
    SELECT t.* FROM unnest($7::text[]) AS r (reason) CROSS JOIN LATERAL (
        SELECT id::text AS id, reason AS kind, amount, description AS reference, id::text AS transfer_id,
            payout_id::text, created_at {_RANGE}
    ) t
) a ORDER BY id DESC LIMIT $5
"""  # noqa: S608 -- constants


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
