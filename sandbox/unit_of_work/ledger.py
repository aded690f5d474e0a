"""Open accounts, and credit many wallets in one statement. `psp_write` writes all other transfers and balances."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.domain.ledger import MERCHANT_ACCOUNTS
from sandbox.domain.money import ZERO
from sandbox.infrastructure.db.rows import as_json
from sandbox.infrastructure.db.statements import read_statements

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_SQL: Final = read_statements(__name__)
_CREDITS: Final = _SQL["credits"]
_OPEN_ACCOUNTS: Final = _SQL["open_accounts"]


class WalletCredit(msgspec.Struct):
    """A credit to a user's wallet. `amount` is decimal text; `line` is its line in the bulk credit file."""

    transfer_id: str
    user_id: str
    amount: str
    line: int


async def credit_wallets(
    conn: "PoolConnectionProxy[Any]",
    merchant_id: str,
    now: datetime,
    credits_: Sequence[WalletCredit],
    source: str,
) -> None:
    """Write a transfer for each credit of a file and update the balances. Pass credits in the order of lines and of ids.

    `source` names the file in the transfers' descriptions. The caller must hold the merchant's lock and have checked that the
    users exist. Raises RuntimeError outside a transaction or if a wallet is missing, and asyncpg.CheckViolationError for an
    amount that is not positive.
    """
    if not conn.is_in_transaction():
        raise RuntimeError("credit_wallets() must be called inside a transaction")
    if not credits_:
        return
    written = await conn.execute(_CREDITS, merchant_id, now, as_json(credits_), source)
    if written != f"INSERT 0 {len(credits_)}":
        raise RuntimeError("a wallet is missing")


async def open_accounts(
    conn: "PoolConnectionProxy[Any]", merchant_id: str, now: datetime, accounts: Sequence[str] = MERCHANT_ACCOUNTS
) -> None:
    """Create accounts with a zero balance: a new merchant's own by default, or its new users' wallets."""
    await conn.execute(_OPEN_ACCOUNTS, merchant_id, ZERO, now, list(accounts))
