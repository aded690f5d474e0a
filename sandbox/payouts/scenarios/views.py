"""What the API shows of scenarios. Pure."""

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from sandbox.domain.fields import one_of
from sandbox.domain.scenario_engine import Scenario
from sandbox.payouts.scenarios.explained import ExplainedStep


class ScenarioMatch(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The conditions of a scenario. A payout must meet all of them."""

    suffix: str | UnsetType = UNSET
    account_number: str | UnsetType = UNSET
    bank_code: str | UnsetType = UNSET
    wallet_code: str | UnsetType = UNSET
    amount_from: str | UnsetType = UNSET
    amount_to: str | UnsetType = UNSET
    user_id: str | UnsetType = UNSET
    metadata: dict[str, str] | UnsetType = UNSET
    scenario_header: str | UnsetType = UNSET


class ScenarioStep(msgspec.Struct):
    """One status change of a scenario, `after` seconds of the merchant's time from the previous one."""

    to: str
    after: float
    failure_code: str | None
    psp_reference: str | None
    probability: float
    wait: bool


class ScenarioRule(msgspec.Struct):
    """A scenario: one of the merchant's own rules, or a built-in scenario, which has no id and no position."""

    id: str | None
    name: str
    source: Annotated[str, one_of(("own", "builtin"))]
    match: ScenarioMatch
    steps: list[ScenarioStep]
    position: int | None


class Explanation(msgspec.Struct):
    """The scenario that a payout would follow, the conditions that chose it, and the expected changes.

    `rule_id` is null for a built-in scenario, and for the request's `rule`.
    """

    scenario: str
    source: Annotated[str, one_of(("own", "builtin"))]
    rule_id: str | None
    matched_by: list[str]
    steps: list[ExplainedStep]


class ExamplePayout(msgspec.Struct):
    """The fields of a payout that follows a scenario, as far as the scenario's conditions name them.

    `iban` is the same account as an IBAN; null in a wallet. `needs` are conditions that the other fields do not meet: of
    user_id, metadata and scenario_header.
    """

    amount: str
    bank_code: str | None
    wallet_code: str | None
    account_number: str
    iban: str | None
    needs: list[str]


class CatalogueEntry(msgspec.Struct):
    """A scenario with a payout that follows it.

    `header` selects the scenario for any payout. `refusal` is why POST /verify-account finds the account not valid, or null.
    `sale_payments` says whether a user with this account receives advances and final payments: paid, failed or random.
    """

    scenario: ScenarioRule
    example: ExamplePayout
    steps: list[ExplainedStep]
    header: str
    refusal: str | None
    sale_payments: str


class FailureMeaning(msgspec.Struct):
    """A failure code, and what it means."""

    code: str
    meaning: str


class ScenarioCatalogue(msgspec.Struct):
    """All scenarios in the order in which they are tried, each with an example, and all failure codes."""

    scenarios: list[CatalogueEntry]
    failure_codes: list[FailureMeaning]


def shown_rule(scenario: Scenario, position: int | None) -> ScenarioRule:
    """Return a scenario as the API shows it. `position` is that of an own rule."""
    match = scenario.match
    fields = {name: getattr(match, name) for name in match.condition_names()}
    for name in fields.keys() & {"amount_from", "amount_to"}:
        fields[name] = str(fields[name])
    if match.metadata:
        fields["metadata"] = dict(match.metadata)
    return ScenarioRule(
        id=scenario.id,
        name=scenario.name,
        source="builtin" if scenario.id is None else "own",
        match=ScenarioMatch(**fields),
        steps=[
            ScenarioStep(s.to, s.after.total_seconds(), s.failure_code, s.psp_reference, s.probability, s.wait)
            for s in scenario.steps
        ],
        position=position,
    )
