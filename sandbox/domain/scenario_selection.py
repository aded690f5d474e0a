"""Choose the scenario that a payout follows, and set its next step. Pure."""

from sandbox.domain.payout import Payout, PayoutRow
from sandbox.domain.scenario_engine import Catalogue, Facts, Match, Scenario, next_step
from sandbox.domain.stored_scenario import stored_steps
from sandbox.domain.unit import UnitOfWork


def facts_of(payout: Payout, header: str | None) -> Facts:
    """Return the facts that rules match against."""
    return Facts(
        amount=payout.amount,
        account_number=payout.account_number,
        bank_code=payout.bank_code,
        wallet_code=payout.wallet_code,
        user_id=payout.user_id,
        metadata=payout.metadata,
        header=header,
    )


def choose(unit: UnitOfWork, row: PayoutRow) -> Scenario:
    """Choose a payout's scenario by the merchant's current rules and settings."""
    facts = facts_of(row.payout, row.scenario_header)
    return unit.catalogue.choose(facts, unit.custom_scenarios, unit.default_scenario, unit.review_threshold).scenario


def choose_after_review(unit: UnitOfWork, row: PayoutRow) -> Scenario:
    """Choose the scenario of a payout that has passed its review."""
    return unit.catalogue.after_review(row.payout.account_number, unit.default_scenario).scenario


def scenario_of(unit: UnitOfWork, row: PayoutRow) -> Scenario:
    """Return the scenario chosen for a payout, with its steps as they were when it was chosen.

    Raises KeyError if a built-in one no longer exists.
    """
    return named_or_stored(unit.catalogue, row.payout.scenario, row.steps_json)


def named_or_stored(catalogue: Catalogue, name: str, steps_json: str | None) -> Scenario:
    """Return the scenario with the stored steps or, without them, the built-in one with this name. Raises KeyError."""
    if steps_json is None:
        return catalogue.named(name)
    return Scenario(name, Match(), stored_steps(steps_json), steps_json=steps_json)


def schedule_next_step(unit: UnitOfWork, row: PayoutRow, scenario: Scenario, step: int) -> None:
    """Set a payout's next step: the first one from `step` on that the payout will take. Its delay starts now."""
    row.step, row.due_at = next_step(scenario, step, unit.now, row.payout.id)
