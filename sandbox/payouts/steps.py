"""Take the payout steps that are due, for one merchant, in one transaction."""

from typing import TYPE_CHECKING, Any, Final

from sandbox.domain.scenario_runner import take_all
from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.metrics import BATCH_SIZE, WORK_LAG
from sandbox.unit_of_work.claim import Claim
from sandbox.unit_of_work.runner import NothingToDoError, UnitsOfWork

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

BATCH: Final = 256
"""Payouts of one transaction, at most."""


async def take_due_steps(work: UnitsOfWork, merchant_id: str, limit: int = BATCH) -> int:
    """Take the steps that are due now, of at most `limit` payouts; returns how many payouts had one.

    Safe to call from any number of workers: the merchant's lock lets one through at a time, and what it did is no
    longer due for the next. Raises NOT_FOUND, and asyncpg's errors; then nothing was written.
    """

    async def decide(_: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> int:
        if not unit.due:
            raise NothingToDoError(0)
        take_claimed_steps(unit)
        BATCH_SIZE.labels("worker").observe(len(unit.due))
        return len(unit.due)

    return await work.decide(Claim(merchant_id, limit, due=limit), decide)


def take_claimed_steps(unit: UnitOfWork) -> None:
    """Take the steps of the payouts that the unit claimed because theirs are due."""
    if unit.due:
        lag = max((unit.now - row.due_at).total_seconds() for row in unit.due if row.due_at is not None)
        WORK_LAG.labels("payouts").set(lag)
        take_all(unit, unit.due)
