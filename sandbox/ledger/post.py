"""The only place that writes balances and transfers."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sandbox.ledger.model import MERCHANT_ACCOUNTS, Posted
from sandbox.money import ZERO

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

# Amounts go as text: a Decimal costs the driver four times as much, and the server next to nothing to read.
_TRANSFERS = """
INSERT INTO transfers (merchant_id, id, debit_account, credit_account, amount, debit_balance_after, credit_balance_after,
    reason, payout_id, description, created_at)
SELECT $1, id, debit_account, credit_account, amount, debit_after, credit_after, reason, payout_id, description, $2
FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[]::numeric[], $7::text[]::numeric[], $8::text[]::numeric[],
    $9::text[], $10::uuid[], $11::text[])
    AS t (id, debit_account, credit_account, amount, debit_after, credit_after, reason, payout_id, description)
"""

# Each account is written once with its last balance; the merchant's lock, held since the claim, makes that exact.
_BALANCES = """
UPDATE accounts a SET balance = n.balance, version = a.version + n.changes, updated_at = $2
FROM unnest($3::text[], $4::text[]::numeric[], $5::bigint[]) AS n (account, balance, changes)
WHERE a.merchant_id = $1 AND a.account = n.account
"""


async def write_transfers(
    conn: "PoolConnectionProxy[Any]",
    merchant_id: str,
    now: datetime,
    posted: Sequence[Posted],
    balances: Mapping[str, Decimal],
) -> None:
    """Write accepted transfers and the balances that they lead to, inside the caller's transaction.

    The caller holds the merchant's lock and read `balances` under it. Raises RuntimeError outside a transaction, and
    asyncpg.CheckViolationError if the result were impossible.
    """
    if not conn.is_in_transaction():
        raise RuntimeError("money moves only inside a transaction")
    if not posted:
        return
    transfers = [result.transfer for result in posted]
    debits = [transfer.debit_account for transfer in transfers]
    credits_ = [transfer.credit_account for transfer in transfers]
    await conn.execute(
        _TRANSFERS,
        merchant_id,
        now,
        [transfer.id for transfer in transfers],
        debits,
        credits_,
        [str(transfer.amount) for transfer in transfers],
        [str(result.debit_balance_after) for result in posted],
        [str(result.credit_balance_after) for result in posted],
        [transfer.movement.reason for transfer in transfers],
        [transfer.payout_id for transfer in transfers],
        [transfer.description for transfer in transfers],
    )
    changes: dict[str, int] = {}
    for account in (*debits, *credits_):
        changes[account] = changes.get(account, 0) + 1
    accounts = sorted(changes)
    written = await conn.execute(
        _BALANCES,
        merchant_id,
        now,
        accounts,
        [str(balances[account]) for account in accounts],
        [changes[account] for account in accounts],
    )
    if written != f"UPDATE {len(accounts)}":
        raise RuntimeError(f"an account of {accounts} is missing")


async def open_accounts(
    conn: "PoolConnectionProxy[Any]", merchant_id: str, now: datetime, accounts: Sequence[str] = MERCHANT_ACCOUNTS
) -> None:
    """Create accounts, empty: a new merchant's own, or its new users' wallets."""
    await conn.execute(
        "INSERT INTO accounts (merchant_id, account, balance, version, updated_at) "
        "SELECT $1, account, $2, 0, $3 FROM unnest($4::text[]) AS a (account)",
        merchant_id,
        ZERO,
        now,
        list(accounts),
    )
