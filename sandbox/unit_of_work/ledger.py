"""Write transfers and balances. Nothing else does: the statements are in ledger.sql."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.db.rows import as_json
from sandbox.db.statements import read_statements
from sandbox.domain.ledger import MERCHANT_ACCOUNTS, Posted
from sandbox.domain.money import ZERO

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_SQL: Final = read_statements(__name__)
_TRANSFERS: Final = _SQL["transfers"]
_BALANCES: Final = _SQL["balances"]
_CREDITS: Final = _SQL["credits"]
_OPEN_ACCOUNTS: Final = _SQL["open_accounts"]


class WalletCredit(msgspec.Struct):
    """A credit to a user's wallet. `amount` is decimal text; `line` is its line in the bulk credit file."""

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
    """Write accepted transfers and the resulting `balances`, in the caller's transaction.

    The caller must hold the merchant's lock, and must have read `balances` under it. Raises RuntimeError outside a transaction
    or if an account is missing, and asyncpg.CheckViolationError for a balance that an account must not have.
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
    """Write a transfer for each credit of a file and update the balances. Pass credits in the order of lines and of ids.

    `source` names the file in the transfers' descriptions. The caller must hold the merchant's lock and have checked that the
    users exist. Raises RuntimeError outside a transaction or if a wallet is missing, and asyncpg.CheckViolationError for an
    amount that is not positive.
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
    """Create accounts with a zero balance: a new merchant's own by default, or its new users' wallets."""
    await conn.execute(_OPEN_ACCOUNTS, merchant_id, ZERO, now, list(accounts))
