"""Run due payout steps, of one merchant or of several in one transaction."""

from collections.abc import Collection
from typing import Final

from sandbox.domain.scenario_runner import take_all
from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.metrics import BATCH_MERCHANTS, BATCH_SIZE, WORK_LAG
from sandbox.unit_of_work.claim import ClaimRequest
from sandbox.unit_of_work.runner import BeforeWrite, UnitOfWorkRunner

BATCH: Final = 256
"""Maximum number of payouts in one transaction of a clock that advances."""
_WORKER_BATCH: Final = 128
"""Maximum number of payouts in one transaction of a worker. While it runs, the merchant's requests wait for the lock."""
_MIN_SHARE: Final = 16
"""Minimum number of payouts per merchant in a shared transaction."""


async def take_due_steps(
    work: UnitOfWorkRunner,
    merchant_ids: Collection[str],
    before_write: BeforeWrite | None = None,
    lock_timeout: float | None = None,
    limit: int = _WORKER_BATCH,
) -> dict[str, bool]:
    """Run the steps due now, for about `limit` payouts, in one transaction. Return for each merchant whether more may be due.

    Safe to call from any number of workers: a merchant's lock admits one at a time, and the next one no longer finds these
    steps due. Merchants that were deleted have no entry, nor have those that are locked elsewhere, unless `lock_timeout` says
    for how many seconds to wait. Raises asyncpg's errors. If it raises, nothing was written for any merchant.
    """
    share = max(_MIN_SHARE, limit // len(merchant_ids))
    requests = [ClaimRequest(merchant_id, share, due_limit=share) for merchant_id in merchant_ids]
    sizes: list[int] = []

    def decide(unit: UnitOfWork) -> bool:
        if unit.due:
            sizes.append(len(unit.due))
        return take_claimed_steps(unit)

    more = await work.run_shared_transaction(requests, decide, before_write, lock_timeout)
    if sizes:
        BATCH_SIZE.labels("worker").observe(sum(sizes))
        BATCH_MERCHANTS.labels("worker").observe(len(sizes))
    return more


def take_claimed_steps(unit: UnitOfWork) -> bool:
    """Run the due steps of the payouts that the unit claimed. Return whether more may be due."""
    if unit.due:
        lag = max((unit.now - row.due_at).total_seconds() for row in unit.due if row.due_at is not None)
        WORK_LAG.labels("payouts").set(lag)
        take_all(unit, unit.due)
    return unit.more_due
