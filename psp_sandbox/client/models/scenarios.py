"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioMatch:
    """The conditions of a scenario. A payout must meet all of them."""

    suffix: str | None = None
    account_number: str | None = None
    bank_code: str | None = None
    wallet_code: str | None = None
    amount_from: str | None = None
    amount_to: str | None = None
    user_id: str | None = None
    metadata: dict[str, str] | None = None
    scenario_header: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioStep:
    """One status change of a scenario, `after` seconds of the merchant's time from the previous one."""

    to: str
    after: float
    failure_code: str | None
    psp_reference: str | None
    probability: float
    wait: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioRule:
    """A scenario: one of the merchant's own rules, or a built-in scenario, which has no id and no position."""

    id: str | None
    name: str
    source: Literal["own", "builtin"]
    match: ScenarioMatch
    steps: list[ScenarioStep]
    position: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamplePayout:
    """The fields of a payout that follows a scenario, so far as the scenario's conditions name them.

    `iban` is the same account as an IBAN; null in a wallet. `needs` are conditions that the other fields do not
    meet: of user_id, metadata and scenario_header.
    """

    amount: str
    bank_code: str | None
    wallet_code: str | None
    account_number: str
    iban: str | None
    needs: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedStep:
    """One expected change, `after_seconds` from the previous one and `at` seconds from the creation (null: uncertain).

    `probability` is the chance that a payout takes the step if it reaches it; `overall_probability` is the chance
    that it reaches and takes it.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """A scenario with a payout that follows it.

    `header` selects the scenario for any payout. `refusal` is why POST /verify-account finds the account not valid,
    or null. `sale_payments` says whether a user with this account receives advances and final payments: paid,
    failed or random.
    """

    scenario: ScenarioRule
    example: ExamplePayout
    steps: list[ExplainedStep]
    header: str
    refusal: str | None
    sale_payments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The scenario that a payout would follow, the conditions that chose it, and the expected changes.

    `rule_id` is null for a built-in scenario, and for the request's `rule`.
    """

    scenario: str
    source: Literal["own", "builtin"]
    rule_id: str | None
    matched_by: list[str]
    steps: list[ExplainedStep]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureMeaning:
    """A failure code, and what it means."""

    code: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioCatalogue:
    """All scenarios in the order in which they are tried, each with an example, and all failure codes."""

    scenarios: list[CatalogueEntry]
    failure_codes: list[FailureMeaning]
