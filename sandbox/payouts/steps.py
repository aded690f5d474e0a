"""Run due payout steps, of one merchant or of several in one transaction."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from sandbox.domain.scenario_runner import take_all
from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.metrics import BATCH_MERCHANTS, BATCH_SIZE, WORK_LAG
from sandbox.unit_of_work.claim import ClaimRequest
from sandbox.unit_of_work.runner import BeforeWrite, NothingToDoError, UnitOfWorkRunner
from sandbox.unit_of_work.transaction import LOCK_TURN

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

BATCH: Final = 256
"""Maximum number of payouts in one transaction of a clock that advances."""
_WORKER_BATCH: Final = 128
"""Maximum number of payouts in one transaction of a worker. While it runs, the merchant's requests wait for the lock."""
_MIN_SHARE: Final = 16
"""Minimum number of payouts per merchant in a shared transaction."""


async def take_due_steps(
    work: UnitOfWorkRunner,
    merchant_id: str,
    limit: int = _WORKER_BATCH,
    before_write: BeforeWrite | None = None,
    lock_timeout: float = LOCK_TURN,
) -> bool:
    """Run the steps that are due now, for at most `limit` payouts. Return whether more may be due.

    Safe to call from any number of workers: the merchant's lock admits one at a time, and the next one no longer finds
    these steps due. Raises NOT_FOUND if the merchant was deleted, or asyncpg's errors, among them LockNotAvailableError if it
    waits for a lock for more than `lock_timeout` seconds. If it raises, nothing was written.
    """

    async def decide(_: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> bool:
        if not unit.due:
            raise NothingToDoError(False)
        _count([len(unit.due)])
        return take_claimed_steps(unit)

    request = ClaimRequest(merchant_id, limit, due_limit=limit)
    return await work.run_transaction(request, decide, before_write=before_write, lock_timeout=lock_timeout)


async def take_due_steps_together(
    work: UnitOfWorkRunner, merchant_ids: Collection[str], before_write: BeforeWrite | None = None
) -> dict[str, bool]:
    """Run the steps that are due now for several merchants, in one transaction. Return for each whether more may be due.

    Merchants that are locked elsewhere or were deleted have no entry. Raises asyncpg's errors. If it raises, nothing was
    written for any merchant.
    """
    share = max(_MIN_SHARE, _WORKER_BATCH // len(merchant_ids))
    requests = [ClaimRequest(merchant_id, share, due_limit=share) for merchant_id in merchant_ids]
    sizes: list[int] = []

    def decide(unit: UnitOfWork) -> bool:
        if unit.due:
            sizes.append(len(unit.due))
        return take_claimed_steps(unit)

    more = await work.run_shared_transaction(requests, decide, before_write)
    if sizes:
        _count(sizes)
    return more


def _count(sizes: Sequence[int]) -> None:
    """Count a transaction in the metrics. `sizes` has the number of payouts of each merchant."""
    BATCH_SIZE.labels("worker").observe(sum(sizes))
    BATCH_MERCHANTS.labels("worker").observe(len(sizes))


def take_claimed_steps(unit: UnitOfWork) -> bool:
    """Run the due steps of the payouts that the unit claimed. Return whether more may be due."""
    if unit.due:
        lag = max((unit.now - row.due_at).total_seconds() for row in unit.due if row.due_at is not None)
        WORK_LAG.labels("payouts").set(lag)
        take_all(unit, unit.due)
    return unit.more_due
