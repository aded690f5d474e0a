"""The store's side of a payout's steps: take those that are due, for one merchant, in one transaction."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sandbox.db.engine import transaction
from sandbox.domain.payout import PayoutRow
from sandbox.domain.scenario_engine import Catalogue
from sandbox.domain.scenario_runner import take_all
from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.metrics import BATCH_SIZE, WORK_LAG
from sandbox.unit_of_work.committed import committed
from sandbox.unit_of_work.store import lock_merchant, read_claim, read_due, write_unit

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

BATCH: Final = 256
"""Payouts of one transaction, at most."""


class _NothingDueError(Exception):
    """Takes a transaction back that found nothing to do."""


async def take_due_steps(merchant_id: str, catalogue: Catalogue, limit: int) -> tuple[int, UnitOfWork]:
    """Take the steps that are due now, of at most `limit` payouts; returns how many payouts had one, and the unit.

    Safe to call from any number of workers: the merchant's lock lets one through at a time, and what it did is no
    longer due for the next. Raises asyncpg's errors; then nothing was written.
    """
    rows: Sequence[PayoutRow] = ()
    try:
        async with transaction() as conn:
            unit = await lock_merchant(conn, merchant_id, limit)
            rows, _ = await take_batch(conn, unit, catalogue, limit)
            if not rows:
                # Nothing is written, so that a look costs no flush to the disk, and uses up none of the merchant's ids:
                # how often workers look may not change what a repeatable world's ids are.
                raise _NothingDueError
    except _NothingDueError:
        return 0, unit
    BATCH_SIZE.labels("worker").observe(len(rows))
    committed(unit)
    return len(rows), unit


async def take_batch(
    conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, catalogue: Catalogue, limit: int
) -> tuple[Sequence[PayoutRow], bool]:
    """Take due steps, of at most `limit` payouts, in the transaction that holds the unit's lock, and write them.

    Returns the payouts that had one, and whether there may be more of them. Raises asyncpg's errors.
    """
    await read_claim(conn, unit)
    # Each change is a delivery for every endpoint: with many endpoints fewer payouts go into one transaction, so that
    # the merchant's lock is never held for long.
    limit = max(16, limit // max(1, len(unit.subscriptions)))
    rows = await read_due(conn, unit, limit)
    if rows:
        WORK_LAG.labels("payouts").set(_lag(rows, unit.now))
        take_all(unit, rows, catalogue)
        await write_unit(conn, unit)
    return rows, len(rows) == limit


def _lag(rows: list[PayoutRow], now: datetime) -> float:
    return max((now - row.due_at).total_seconds() for row in rows if row.due_at is not None)
