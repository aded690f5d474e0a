"""Read users and their wallets into a unit of work, and add up their bulk credits."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from sandbox.domain.ledger import wallet_of
from sandbox.domain.unit import UnitOfWork
from sandbox.domain.user import to_user
from sandbox.infrastructure.db.rows import as_json
from sandbox.infrastructure.db.statements import read_statements
from sandbox.unit_of_work.ledger import WalletCredit

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_SQL: Final = read_statements(__name__)
_READ: Final = _SQL["read"]
_CREDIT: Final = _SQL["credit"]


async def read_users(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, user_ids: Iterable[str]) -> None:
    """Read users and the balances of their wallets into the unit. Users that do not exist are skipped."""
    for record in await conn.fetch(_READ, unit.merchant_id, sorted(set(user_ids))):
        user = to_user(record)
        unit.users[user.id] = user
        unit.balances[wallet_of(user.id)] = record["wallet"]


async def add_credits(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, credits_: Sequence[WalletCredit]) -> None:
    """Add credits to the users' `credited` sums, and put the users' new versions into `unit.credited`."""
    rows = as_json({"user_id": credit.user_id, "amount": credit.amount} for credit in credits_)
    for user_id, version in await conn.fetch(_CREDIT, unit.merchant_id, unit.now, rows):
        unit.credited[user_id] = version
