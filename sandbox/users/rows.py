"""Users in a unit of work: read with their wallets under the merchant's lock, written with the unit."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sandbox.ledger.model import wallet_of
from sandbox.users.model import COLUMNS, UserRow, UserTransaction, to_user
from sandbox.work.unit import Unit

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_READ: Final = f"""
SELECT {COLUMNS}, (SELECT a.balance FROM accounts a WHERE a.merchant_id = $1 AND a.account = 'WALLET:' || u.id) AS wallet
FROM users u WHERE u.merchant_id = $1 AND u.id = ANY ($2::uuid[])
"""  # noqa: S608 -- constants

_WRITE: Final = """
UPDATE users u SET earned = n.earned, spent = n.spent, credited = n.credited, advances = n.advances, finals = n.finals,
    requested = n.requested, approved = n.approved, paid = n.paid, version = n.version, updated_at = $2
FROM unnest($3::uuid[], $4::text[]::numeric[], $5::text[]::numeric[], $6::text[]::numeric[], $7::text[]::numeric[],
    $8::text[]::numeric[], $9::text[]::numeric[], $10::text[]::numeric[], $11::text[]::numeric[], $12::bigint[])
    AS n (id, earned, spent, credited, advances, finals, requested, approved, paid, version)
WHERE u.merchant_id = $1 AND u.id = n.id
"""

_TRANSACTIONS: Final = """
INSERT INTO user_transactions (merchant_id, id, user_id, type, amount, reference, transfer_id, payout_id, created_at)
SELECT $1, id, user_id, type, amount, reference, transfer_id, payout_id, $2
FROM unnest($3::uuid[], $4::uuid[], $5::text[], $6::text[]::numeric[], $7::text[], $8::uuid[], $9::uuid[])
    AS t (id, user_id, type, amount, reference, transfer_id, payout_id)
"""


async def read_users(conn: "PoolConnectionProxy[Any]", unit: Unit, user_ids: Iterable[str]) -> None:
    """Fill the unit with users and the balances of their wallets; who is not there is left out."""
    for record in await conn.fetch(_READ, unit.merchant_id, sorted(set(user_ids))):
        user = to_user(record)
        unit.users[user.id] = user
        unit.balances[wallet_of(user.id)] = record["wallet"]


async def write_users(
    conn: "PoolConnectionProxy[Any]",
    merchant_id: str,
    now: datetime,
    users: Sequence[UserRow],
    transactions: Sequence[UserTransaction],
) -> None:
    """Write users that changed and their new transactions. Raises RuntimeError if a user is gone, and asyncpg's errors."""
    written = await conn.execute(
        _WRITE,
        merchant_id,
        now,
        [user.id for user in users],
        [str(user.earned) for user in users],
        [str(user.spent) for user in users],
        [str(user.credited) for user in users],
        [str(user.advances) for user in users],
        [str(user.finals) for user in users],
        [str(user.requested) for user in users],
        [str(user.approved) for user in users],
        [str(user.paid) for user in users],
        [user.version for user in users],
    )
    if written != f"UPDATE {len(users)}":
        raise RuntimeError("a claimed user is gone")
    if transactions:
        await conn.execute(
            _TRANSACTIONS,
            merchant_id,
            now,
            [transaction.id for transaction in transactions],
            [transaction.user_id for transaction in transactions],
            [transaction.type for transaction in transactions],
            [str(transaction.amount) for transaction in transactions],
            [transaction.reference for transaction in transactions],
            [transaction.transfer_id for transaction in transactions],
            [transaction.payout_id for transaction in transactions],
        )
