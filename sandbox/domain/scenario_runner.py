"""Take the scenario steps that are due. Pure."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from sandbox.domain.errors import Problem
from sandbox.domain.payout import PayoutRow
from sandbox.domain.payout_states import FAILED, IN_REVIEW, REJECTED, REQUESTED, TRANSITIONS
from sandbox.domain.scenario_engine import Decision, Scenario, Step, decide, has_stopped
from sandbox.domain.scenario_selection import scenario_of
from sandbox.domain.unit import UnitOfWork


def take_all(unit: UnitOfWork, rows: Iterable[PayoutRow]) -> None:
    """Take the due steps of several payouts.

    A payout whose step fails (for example, because its scenario no longer exists) stops until a request changes its
    state. It does not block the others.
    """
    for row in rows:
        try:
            take_steps(unit, row)
        except (Problem, KeyError) as error:
            row.due_at = None
            unit.stuck[row.payout.id] = str(error)


def run_due_inline(unit: UnitOfWork) -> None:
    """Take the due steps of the payouts that the unit created or changed, but only if the merchant's clock is frozen.

    If the clock is running, a worker takes them. A frozen, seeded world must produce the same ids each time. Ids come from the
    merchant's counter, and a worker would increment it at a random point between the merchant's calls.
    """
    if unit.clock.frozen_at is None:
        return
    rows = {row.payout.id: row for row in (*unit.created, *unit.changed.values())}
    take_all(unit, [row for row in rows.values() if row.due_at is not None and row.due_at <= unit.now])


def take_steps(unit: UnitOfWork, row: PayoutRow) -> None:
    """Take a payout's due step, and the steps after it that have no delay. Raises Problem or KeyError."""
    unit.changed[row.payout.id] = row
    decision = decide_due(scenario_of(unit, row), row.step, row.payout.status, unit.now, row.payout.id)
    row.step, row.due_at = decision.step, decision.due_at
    for number, step in decision.taken:
        unit.transition(row, step.to, "worker", step=number, failure_code=step.failure_code, psp_reference=step.psp_reference)
    if row.payout.status == IN_REVIEW and row.due_at is None and not decision.is_blocked:
        row.due_at = unit.approval_expires_at


def decide_due(scenario: Scenario, step: int, status: str, now: datetime, payout_id: str) -> Decision:
    """Return what a payout in `status` does when its next step, number `step`, falls due at `now`."""
    if status == REQUESTED or (status == IN_REVIEW and has_stopped(scenario, step, payout_id)):
        # While a payout waits for a decision, the only thing that can fall due is the end of the wait.
        end = Step(REJECTED if status == REQUESTED else FAILED, failure_code="APPROVAL_EXPIRED")
        return Decision(((None, end),), step, None)
    decision = decide(scenario, step, now, payout_id)
    for position, (_, taken) in enumerate(decision.taken):
        if (status, taken.to) not in TRANSITIONS:
            # Between two steps, a request changed the payout to a state from which the scenario cannot continue. Stop here: the
            # next request decides.
            return replace(decision, taken=decision.taken[:position], due_at=None, is_blocked=True)
        status = taken.to
    return decision
