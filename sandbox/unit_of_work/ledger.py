"""The only place that writes balances and transfers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from sandbox.db.rows import as_json, update_by_key
from sandbox.domain.ledger import CREDIT, MERCHANT_ACCOUNTS, WALLET, Posted
from sandbox.domain.money import ZERO

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_TRANSFERS = """
INSERT INTO transfers (merchant_id, id, debit_account, credit_account, amount, debit_balance_after, credit_balance_after,
    reason, payout_id, description, created_at)
SELECT $1, id, debit_account, credit_account, amount, debit_after, credit_after, reason, payout_id, description, $2
FROM json_to_recordset($3::json) AS t (id uuid, debit_account text, credit_account text, amount numeric, debit_after numeric,
    credit_after numeric, reason text, payout_id uuid, description text)
"""

# Each account is written once with its last balance; the merchant's lock, held since the claim, makes that exact.
_BALANCES = update_by_key(
    "accounts",
    rows="json_to_recordset($3::json) AS n (account text, balance numeric, changes bigint)",
    key=("account", "n.account"),
    changes={"balance": "n.balance", "version": "k.version + n.changes", "updated_at": "$2"},
    kept=(),
)

# Wallets and what stands against them have no lower bound, so a credit cannot be refused, and the server adds up by itself what
# `model.post` would: one transfer after the other, each with both balances after it. The balances before it are looked up
# beside the change, which the same statement does not see.
_CREDITS = f"""
WITH credits AS MATERIALIZED (
    SELECT transfer_id AS id, '{WALLET}:' || user_id AS account, amount, line
    FROM json_to_recordset($3::json) AS n (transfer_id uuid, user_id text, amount numeric, line int)
), changes AS (
    SELECT account, sum(amount) AS amount, count(*) AS changes FROM credits GROUP BY account
    UNION ALL SELECT '{CREDIT.debit}', -sum(amount), count(*) FROM credits
), changed AS ({
    update_by_key(
        "accounts",
        rows="changes n",
        key=("account", "n.account"),
        changes={"balance": "k.balance + n.amount", "version": "k.version + n.changes", "updated_at": "$2"},
        kept=(),
    )
})
INSERT INTO transfers (merchant_id, id, debit_account, credit_account, amount, debit_balance_after, credit_balance_after,
    reason, payout_id, description, created_at)
SELECT $1, c.id, '{CREDIT.debit}', c.account, c.amount, funds.balance - sum(c.amount) OVER (ORDER BY c.line),
    wallet.balance + sum(c.amount) OVER (PARTITION BY c.account ORDER BY c.line),
    '{CREDIT.reason}', NULL, $4 || ' line ' || c.line, $2
FROM (SELECT balance FROM accounts WHERE merchant_id = $1 AND account = '{CREDIT.debit}' OFFSET 0) funds
CROSS JOIN credits c CROSS JOIN LATERAL (
    SELECT balance FROM accounts WHERE merchant_id = $1 AND account = c.account OFFSET 0
) wallet
"""  # noqa: S608 -- constants


class WalletCredit(msgspec.Struct):
    """Money for a user's wallet, one of many: `amount` as text, and the line of the file that it comes from."""

    transfer_id: str
    user_id: str
    amount: str
    line: int


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
    changes: Counter[str] = Counter()
    rows = []
    for result in posted:
        transfer = result.transfer
        debit, credit = transfer.debit_account, transfer.credit_account
        changes[debit] += 1
        changes[credit] += 1
        rows.append(
            {
                "id": transfer.id,
                "debit_account": debit,
                "credit_account": credit,
                "amount": transfer.amount,
                "debit_after": result.debit_balance_after,
                "credit_after": result.credit_balance_after,
                "reason": transfer.movement.reason,
                "payout_id": transfer.payout_id,
                "description": transfer.description,
            }
        )
    await conn.execute(_TRANSFERS, merchant_id, now, as_json(rows))
    accounts = [{"account": account, "balance": balances[account], "changes": n} for account, n in sorted(changes.items())]
    written = await conn.execute(_BALANCES, merchant_id, now, as_json(accounts))
    if written != f"INSERT 0 {len(accounts)}":
        raise RuntimeError(f"an account of {sorted(changes)} is missing")


async def credit_wallets(
    conn: "PoolConnectionProxy[Any]",
    merchant_id: str,
    now: datetime,
    credits_: Sequence[WalletCredit],
    source: str,
) -> None:
    """Write a transfer for each credit of a file, in the order of lines and ids, and the balances that they lead to.

    `source` says in the ledger which file it was. The caller holds the merchant's lock and has seen that the users are there.
    Raises RuntimeError outside a transaction or without a wallet, and asyncpg.CheckViolationError for an amount that is not
    positive.
    """
    if not conn.is_in_transaction():
        raise RuntimeError("money moves only inside a transaction")
    if not credits_:
        return
    written = await conn.execute(_CREDITS, merchant_id, now, as_json(credits_), source)
    if written != f"INSERT 0 {len(credits_)}":
        raise RuntimeError("a wallet is missing")


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
