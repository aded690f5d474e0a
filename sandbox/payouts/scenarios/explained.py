"""Explain the changes that a payout of a scenario would go through. Pure."""

from datetime import timedelta

import msgspec

from sandbox.domain.payout_states import EVENT_OF, PENDING, REQUESTED, TRANSITIONS
from sandbox.domain.scenario_engine import Scenario, can_follow


class ExplainedStep(msgspec.Struct):
    """One expected change, `after_seconds` from the previous one and `at` seconds from the creation (null: uncertain).

    `probability` is the chance that a payout takes the step if it reaches it; `overall_probability` is the chance that it
    reaches and takes it.
    """

    step: int | None
    to: str
    after_seconds: float
    at: float | None
    failure_code: str | None
    event_type: str
    money: str | None
    probability: float
    overall_probability: float
    wait: bool


def explained_steps(scenario: Scenario, requires_approval: bool) -> list[ExplainedStep]:
    """Return the changes that a payout of a scenario would go through, starting with its creation."""
    first = REQUESTED if requires_approval else PENDING
    explained = [_change(None, None, first, 0.0, 0.0)]
    at: timedelta | None = timedelta(0)
    if requires_approval:
        explained.append(_change(None, first, PENDING, 0.0, None))
        at = None
    # The statuses of payouts before a step: status → the share of payouts in it, and when they entered it (None: uncertain).
    before: dict[str, tuple[float, timedelta | None]] = {PENDING: (1.0, at)}
    for number, step in enumerate(scenario.steps):
        reaching = {status: entry for status, entry in before.items() if can_follow(status, step.to) and entry[0] > 0}
        times = {entered for _, entered in reaching.values()}
        entered = times.pop() if len(times) == 1 else None
        at = None if entered is None else entered + step.after
        source = next((status for status in reaching if (status, step.to) in TRANSITIONS), None)
        change = _change(number, source, step.to, step.after.total_seconds(), None if at is None else at.total_seconds())
        change.failure_code = step.failure_code
        change.probability = step.probability
        change.overall_probability = round(sum(share for share, _ in reaching.values()) * step.probability, 6)
        change.wait = step.wait
        explained.append(change)
        for status, (share, entered) in reaching.items():
            before[status] = share * (1 - step.probability), entered
        share, entered = before.get(step.to, (0.0, at))
        at = None if step.wait or (share > 0 and entered != at) else at
        before[step.to] = share + change.overall_probability, at
    return explained


def _change(number: int | None, source: str | None, target: str, after: float, at: float | None) -> ExplainedStep:
    # If earlier steps can be skipped, payouts can come from different statuses, but each such change moves the same money.
    change = TRANSITIONS.get((source, target))
    movement = None if change is None else change.movement
    return ExplainedStep(
        step=number,
        to=target,
        after_seconds=after,
        at=at,
        failure_code=None,
        event_type=EVENT_OF[target],
        money=None if movement is None else f"{movement.debit.lower()} → {movement.credit.lower()}",
        probability=1.0,
        overall_probability=1.0,
        wait=False,
    )
