"""Users in a unit of work: read with their wallets under the merchant's lock, written with the unit."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sandbox.db.rows import as_json, by_key, update_by_key
from sandbox.domain.ledger import wallet_of
from sandbox.domain.unit import UnitOfWork
from sandbox.domain.user import COLUMNS, UserRow, UserTransaction, to_user
from sandbox.unit_of_work.ledger import WalletCredit

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

SUMS: Final = ("earned", "spent", "credited", "advances", "finals", "requested", "approved", "paid")

_READ: Final = f"""
SELECT u.*, (SELECT a.balance FROM accounts a WHERE a.merchant_id = $1 AND a.account = 'WALLET:' || u.id) AS wallet
FROM unnest($2::uuid[]) AS n (id) CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM users WHERE {by_key("users", "id", "n.id")} OFFSET 0
) u
"""  # noqa: S608 -- constants

_WRITE: Final = update_by_key(
    "users",
    rows="""json_to_recordset($3::json) AS n (id uuid, earned numeric, spent numeric, credited numeric, advances numeric,
    finals numeric, requested numeric, approved numeric, paid numeric, version bigint)""",
    key=("id", "n.id"),
    changes={column: f"n.{column}" for column in (*SUMS, "version")} | {"updated_at": "$2"},
    kept=("name", "vendor_user_id", "created_at"),
)

_TRANSACTIONS: Final = """
INSERT INTO user_transactions (merchant_id, id, user_id, type, amount, reference, transfer_id, payout_id, created_at)
SELECT $1, id, user_id, type, amount, reference, transfer_id, payout_id, $2
FROM json_to_recordset($3::json) AS t (id uuid, user_id uuid, type text, amount numeric, reference text, transfer_id uuid,
    payout_id uuid)
"""

_CREDIT: Final = update_by_key(
    "users",
    rows="""(
    SELECT user_id, sum(amount) AS amount, count(*) AS changes
    FROM json_to_recordset($3::json) AS c (user_id uuid, amount numeric) GROUP BY user_id
) n""",
    key=("id", "n.user_id"),
    changes={"credited": "k.credited + n.amount", "version": "k.version + n.changes", "updated_at": "$2"},
    kept=("name", "vendor_user_id", "created_at", *(column for column in SUMS if column != "credited")),
    returning="t.id::text AS id, t.version",
)


async def read_users(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, user_ids: Iterable[str]) -> None:
    """Fill the unit with users and the balances of their wallets; who is not there is left out."""
    for record in await conn.fetch(_READ, unit.merchant_id, sorted(set(user_ids))):
        user = to_user(record)
        unit.users[user.id] = user
        unit.balances[wallet_of(user.id)] = record["wallet"]


async def add_credits(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, credits_: Sequence[WalletCredit]) -> None:
    """Add credits to what the users were credited; the unit is told of their new versions."""
    rows = as_json({"user_id": credit.user_id, "amount": credit.amount} for credit in credits_)
    for user_id, version in await conn.fetch(_CREDIT, unit.merchant_id, unit.now, rows):
        unit.credited[user_id] = version


async def write_users(
    conn: "PoolConnectionProxy[Any]",
    merchant_id: str,
    now: datetime,
    users: Sequence[UserRow],
    transactions: Sequence[UserTransaction],
) -> None:
    """Write users that changed and their new transactions. Raises RuntimeError if a user is gone, and asyncpg's errors."""
    written = await conn.execute(_WRITE, merchant_id, now, as_json(users))
    if written != f"INSERT 0 {len(users)}":
        raise RuntimeError("a claimed user is gone")
    if transactions:
        await conn.execute(_TRANSACTIONS, merchant_id, now, as_json(transactions))
