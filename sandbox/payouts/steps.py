"""Run the due payout steps of one merchant in one transaction."""

from typing import TYPE_CHECKING, Any, Final

from sandbox.domain.scenario_runner import take_all
from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.metrics import BATCH_SIZE, WORK_LAG
from sandbox.unit_of_work.claim import ClaimRequest
from sandbox.unit_of_work.runner import NothingToDoError, UnitOfWorkRunner

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

BATCH: Final = 256
"""The most payouts in one transaction."""


async def take_due_steps(work: UnitOfWorkRunner, merchant_id: str, limit: int = BATCH) -> bool:
    """Run the steps that are due now, for at most `limit` payouts. Return whether more may be due.

    Safe to call from any number of workers: the merchant's lock admits one at a time, and the next one no longer finds
    these steps due. Raises NOT_FOUND if the merchant was deleted, or asyncpg's errors; then nothing was written.
    """

    async def decide(_: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> bool:
        if not unit.due:
            raise NothingToDoError(False)
        take_claimed_steps(unit)
        BATCH_SIZE.labels("worker").observe(len(unit.due))
        return unit.more_due

    return await work.decide(ClaimRequest(merchant_id, limit, due_limit=limit), decide)


def take_claimed_steps(unit: UnitOfWork) -> None:
    """Run the due steps of the payouts that the unit claimed."""
    if unit.due:
        lag = max((unit.now - row.due_at).total_seconds() for row in unit.due if row.due_at is not None)
        WORK_LAG.labels("payouts").set(lag)
        take_all(unit, unit.due)
