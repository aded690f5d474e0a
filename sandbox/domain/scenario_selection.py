"""Which scenario a payout follows, and its place there. Pure."""

from sandbox.domain.payout import Payout, PayoutRow
from sandbox.domain.scenario_engine import Facts, Match, Scenario, begin
from sandbox.domain.stored_scenario import stored_steps
from sandbox.domain.unit import UnitOfWork


def facts_of(payout: Payout, header: str | None) -> Facts:
    """What rules may look at."""
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
    """Choose a payout's scenario by the rules that hold now."""
    facts = facts_of(row.payout, row.scenario_header)
    return unit.catalogue.choose(facts, unit.rules, unit.default_scenario, unit.review_threshold).scenario


def choose_after_review(unit: UnitOfWork, row: PayoutRow) -> Scenario:
    """Choose the scenario of a payout whose review is passed."""
    return unit.catalogue.after_review(row.payout.account_number, unit.default_scenario).scenario


def scenario_of(unit: UnitOfWork, row: PayoutRow) -> Scenario:
    """The scenario that was chosen for a payout, as it was then. Raises KeyError if the program no longer has it."""
    if row.path is None:
        return unit.catalogue.named(row.payout.scenario)
    return Scenario(row.payout.scenario, Match(), stored_steps(row.path), path=row.path)


def follow(unit: UnitOfWork, row: PayoutRow, scenario: Scenario, step: int) -> None:
    """Put a payout before step number `step` of its scenario, the change before it being now."""
    row.step, row.due_at = begin(scenario, step, unit.now, row.payout.id)
