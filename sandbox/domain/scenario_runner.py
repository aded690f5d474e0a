"""A payout's way along its scenario: take the steps that are due. Pure."""

from collections.abc import Iterable

from sandbox.domain.errors import Problem
from sandbox.domain.payout import PayoutRow
from sandbox.domain.payout_states import FAILED, IN_REVIEW, REJECTED, REQUESTED, TRANSITIONS
from sandbox.domain.scenario_engine import decide, stands_still
from sandbox.domain.scenario_selection import scenario_of
from sandbox.domain.unit import UnitOfWork


def take_all(unit: UnitOfWork, rows: Iterable[PayoutRow]) -> None:
    """Take the steps of payouts that have one due.

    One payout that cannot go on (its scenario is gone, say) waits for a hand, and never holds up its neighbours.
    """
    for row in rows:
        try:
            take_steps(unit, row)
        except (Problem, KeyError) as error:
            row.due_at = None
            unit.impossible[row.payout.id] = str(error)


def run_due_inline(unit: UnitOfWork) -> None:
    """In a frozen world, take the steps that the unit's own payouts have due; in a running one, nothing.

    Ids come from the merchant's counter. Were a worker to take these steps, its turn among the merchant's calls would
    depend on chance, and with it all later ids: a frozen, seeded world repeats because nobody works in it but its calls.
    """
    if unit.clock.frozen_at is None:
        return
    rows = {row.payout.id: row for row in (*unit.created, *unit.changed.values())}
    take_all(unit, [row for row in rows.values() if row.due_at is not None and row.due_at <= unit.now])


def take_steps(unit: UnitOfWork, row: PayoutRow) -> None:
    """Take a payout's step that is due, and all behind it that wait for nothing. Raises Problem or KeyError."""
    unit.changed[row.payout.id] = row
    scenario, status = scenario_of(unit, row), row.payout.status
    if status == REQUESTED or (status == IN_REVIEW and stands_still(scenario, row.step, row.payout.id)):
        # All that can fall due for one that waits for approval is that it has waited for long enough.
        row.due_at = None
        unit.move(row, REJECTED if status == REQUESTED else FAILED, "worker", failure_code="APPROVAL_EXPIRED")
        return
    decision = decide(scenario, row.step, unit.now, row.payout.id)
    row.step, row.due_at = decision.step, decision.due_at
    for number, step in decision.taken:
        if (row.payout.status, step.to) not in TRANSITIONS:
            # Somebody moved the payout off its path between two steps; the path ends, and a hand decides.
            row.due_at = None
            return
        unit.move(row, step.to, "worker", step=number, failure_code=step.failure_code, psp_reference=step.psp_reference)
    if row.payout.status == IN_REVIEW and row.due_at is None:
        row.due_at = unit.approval_due
