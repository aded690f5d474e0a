"""The worker's part of a payout's life: take the steps that are due, for one merchant, in one transaction."""

from datetime import datetime

import structlog

from sandbox.db.engine import transaction
from sandbox.errors import Problem
from sandbox.metrics import BATCH_SIZE, WORK_LAG
from sandbox.payouts.choice import scenario_of
from sandbox.payouts.model import PayoutRow
from sandbox.payouts.states import CHANGES
from sandbox.scenarios.engine import Catalogue, decide
from sandbox.work.loop import count_unit
from sandbox.work.store import lock_merchant, read_claim, read_due, write_unit
from sandbox.work.unit import Unit

_log = structlog.get_logger()


async def take_due_steps(merchant_id: str, catalogue: Catalogue, limit: int) -> tuple[int, Unit]:
    """Take the steps that are due now, of at most `limit` payouts; returns how many payouts had one, and the unit.

    Safe to call from any number of workers: the merchant's lock lets one through at a time, and what it did is no
    longer due for the next. Raises asyncpg's errors; then nothing was written.
    """
    async with transaction() as conn:
        unit = await lock_merchant(conn, merchant_id, limit)
        await read_claim(conn, unit)
        # Each change is a delivery for every endpoint: with many endpoints fewer payouts go into one transaction, so that
        # the merchant's lock is never held for long.
        rows = await read_due(conn, unit, max(16, limit // max(1, len(unit.subscriptions))))
        if rows:
            WORK_LAG.labels("payouts").set(_lag(rows, unit.now))
            for row in rows:
                try:
                    take_steps(unit, row, catalogue)
                except (Problem, KeyError) as error:
                    # One payout that cannot go on (its scenario is gone, say) must not hold up its neighbours for ever.
                    row.due_at = None
                    _log.error("step_impossible", merchant_id=merchant_id, payout_id=row.payout.id, error=str(error))
            await write_unit(conn, unit)
    if rows:
        BATCH_SIZE.labels("worker").observe(len(rows))
        count_unit(unit)
    return len(rows), unit


def take_steps(unit: Unit, row: PayoutRow, catalogue: Catalogue) -> None:
    """Take a payout's step that is due, and all behind it that wait for nothing."""
    unit.changed[row.payout.id] = row
    decision = decide(scenario_of(row, catalogue), row.step, unit.now, row.payout.id)
    row.step, row.due_at = decision.step, decision.due_at
    for number, step in decision.taken:
        if (row.payout.status, step.to) not in CHANGES:
            # Somebody moved the payout off its path between two steps; the path ends, and a hand decides.
            row.due_at = None
            return
        unit.move(row, step.to, "worker", step=number, failure_code=step.failure_code, psp_reference=step.psp_reference)


def _lag(rows: list[PayoutRow], now: datetime) -> float:
    return max((now - row.due_at).total_seconds() for row in rows if row.due_at is not None)
