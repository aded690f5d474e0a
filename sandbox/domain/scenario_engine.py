"""Choose a payout's scenario, and decide which of its steps to take now. Pure: the current time is passed in."""

import hashlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from sandbox.domain.errors import invalid

HEADER: Final = "X-Sandbox-Scenario"
"""A header of a create request. Its value is the name of a scenario, or text that a rule matches on."""

_ENDED: Final = frozenset({"FAILED", "CANCELLED", "REJECTED", "RETURNED"})


@dataclass(frozen=True, slots=True)
class Step:
    """One change of state: its target, its delay after the previous change, and its failure code or PSP reference."""

    to: str
    after: timedelta = timedelta(0)
    failure_code: str | None = None
    psp_reference: str | None = None
    probability: float = 1.0
    """The share of payouts that take the step. The others continue with the next one."""
    wait: bool = False
    """Stop after this step. The later steps run once a request releases the payout."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about a payout that scenarios match on. `header` is the create request's X-Sandbox-Scenario."""

    amount: Decimal
    account_number: str
    bank_code: str | None
    wallet_code: str | None
    user_id: str | None
    metadata: Mapping[str, str]
    header: str | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """The conditions of a scenario. Every condition that is not None must be met."""

    suffix: str | None = None
    account_number: str | None = None
    bank_code: str | None = None
    wallet_code: str | None = None
    amount_from: Decimal | None = None
    amount_to: Decimal | None = None
    user_id: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    scenario_header: str | None = None

    def matches(self, facts: Facts) -> bool:
        """Return whether all conditions are met."""
        return (
            (self.suffix is None or facts.account_number.endswith(self.suffix))
            and (self.amount_from is None or facts.amount >= self.amount_from)
            and (self.amount_to is None or facts.amount <= self.amount_to)
            and self.account_number in (None, facts.account_number)
            and self.bank_code in (None, facts.bank_code)
            and self.wallet_code in (None, facts.wallet_code)
            and self.user_id in (None, facts.user_id)
            and self.scenario_header in (None, facts.header)
            and all(facts.metadata.get(name) == value for name, value in self.metadata)
        )

    def condition_names(self) -> tuple[str, ...]:
        """Return the names of the conditions that are set."""
        return tuple(name for name in self.__slots__ if getattr(self, name) not in (None, ()))


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named sequence of steps and the conditions that choose it.

    A merchant's own scenario is called a rule; only rules have an id.
    """

    name: str
    match: Match
    steps: tuple[Step, ...]
    id: str | None = None
    steps_json: str | None = None
    """A merchant's own steps as stored JSON. A payout keeps a copy, so later changes to the rule do not affect it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A payout's scenario and the reason for the choice: the names of the conditions that matched, `name` or `default`."""

    scenario: Scenario
    matched_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """The steps to take now, the step after them, and when that is due (None: it does not run automatically)."""

    taken: tuple[tuple[int | None, Step], ...]
    """Each with its number in the scenario; None if no step of the scenario makes the change."""
    step: int
    due_at: datetime | None
    is_blocked: bool = False
    """Whether the scenario cannot continue, because a request changed the payout's state. The next request decides."""


class Catalogue:
    """The built-in scenarios, by name and suffix.

    The scenario with an `amount_from` condition sends large payouts to review.
    """

    def __init__(self, scenarios: Iterable[Scenario]) -> None:
        self.scenarios = tuple(scenarios)
        self._by_name = {scenario.name: scenario for scenario in self.scenarios}
        self._by_suffix = {scenario.match.suffix: scenario for scenario in self.scenarios if scenario.match.suffix}
        self._review = next((s for s in self.scenarios if s.match.amount_from is not None), None)

    def named(self, name: str) -> Scenario:
        """Return the scenario with this name. Raises KeyError."""
        return self._by_name[name]

    def contains(self, name: str) -> bool:
        """Return whether a built-in scenario has this name."""
        return name in self._by_name

    def check_header(self, header: str | None, rules: Sequence[Scenario], field: str = HEADER) -> None:
        """Raise VALIDATION_ERROR for `field` if the header names no scenario and no rule matches on it."""
        if header is None or header in self._by_name:
            return
        if not any(header in (rule.name, rule.match.scenario_header) for rule in rules):
            raise invalid(field, "is not a known scenario; GET /sandbox/v1/scenarios lists all scenarios")

    def applicable(self, default: str, review_threshold: Decimal | None) -> list[Scenario]:
        """Return the built-in scenarios that apply to a merchant in order of precedence: review, suffixes, default."""
        by_suffix = [scenario for scenario in self.scenarios if scenario is not self._review]
        review = []
        if self._review is not None and review_threshold is not None:
            review = [replace(self._review, match=Match(amount_from=review_threshold))]
        return [*review, *by_suffix, Scenario(default, Match(), self.named(default).steps)]

    def choose(self, facts: Facts, rules: Sequence[Scenario], default: str, review_threshold: Decimal | None) -> Choice:
        """Choose a payout's scenario.

        In this order: the scenario that the header names, the first matching rule, review, the scenario of the suffix, the
        default. Payouts of `review_threshold` or more are reviewed; None means no reviews. A rule that matches on the header's
        value takes precedence over a built-in scenario with that name.
        """
        header = facts.header
        if header is not None:
            named = next((rule for rule in rules if rule.name == header), None)
            if named is None and not any(rule.match.scenario_header == header for rule in rules):
                named = self._by_name.get(header)
            if named is not None:
                return Choice(named, ("name",))
        for rule in rules:
            if rule.match.matches(facts):
                return Choice(rule, rule.match.condition_names())
        if header is not None and header in self._by_name:
            return Choice(self._by_name[header], ("name",))
        if self._review is not None and review_threshold is not None and facts.amount >= review_threshold:
            return Choice(self._review, ("amount_from",))
        return self.after_review(facts.account_number, default)

    def after_review(self, account_number: str, default: str) -> Choice:
        """Choose the scenario of a payout that has passed its review: the one of its suffix, or else the default."""
        found = self._by_suffix.get(account_number[-4:])
        return Choice(self._by_name[default], ("default",)) if found is None else Choice(found, ("suffix",))


def next_step(
    scenario: Scenario, step: int, now: datetime, payout_id: str, status: str = "PENDING"
) -> tuple[int, datetime | None]:
    """Return the index of the next step that this payout will take, from `step` on, and its due time.

    The step's delay counts from `now`. `status` is the payout's status before that step. The due time is None if no step is
    left.
    """
    while step < len(scenario.steps) and not (
        can_follow(status, scenario.steps[step].to) and is_taken(scenario.steps[step].probability, payout_id, step)
    ):
        step += 1
    return step, now + scenario.steps[step].after if step < len(scenario.steps) else None


def can_follow(status: str, target: str) -> bool:
    """Return whether a step to `target` can follow `status` in a scenario; a step that cannot is skipped.

    Nothing can follow FAILED, CANCELLED, REJECTED or RETURNED, and only RETURNED can follow SUCCESS.
    """
    return status not in _ENDED and (status != "SUCCESS" or target == "RETURNED")


def is_taken(probability: float, payout_id: str, step: int) -> bool:
    """Return whether a payout takes a step. The result is always the same for the same payout and step."""
    if probability >= 1:
        return True
    return draw(f"{payout_id}:{step}") < probability


def draw(text: str) -> float:
    """Return a pseudo-random number in [0, 1) that depends only on the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def decide(scenario: Scenario, step: int, now: datetime, payout_id: str = "") -> Decision:
    """Return the steps to take now: step number `step`, which is due at `now`, and the steps after it that have no delay."""
    taken: list[tuple[int | None, Step]] = []
    due_at: datetime | None = now
    while due_at is not None and due_at <= now and step < len(scenario.steps):
        current = scenario.steps[step]
        taken.append((step, current))
        step, due_at = next_step(scenario, step + 1, now, payout_id, current.to)
        if current.wait:
            due_at = None
    return Decision(tuple(taken), step, due_at)


def has_stopped(scenario: Scenario, step: int, payout_id: str) -> bool:
    """Return whether a payout whose next step is `step` runs no more steps: its scenario has ended, or waits for a release."""
    if step >= len(scenario.steps):
        return True
    while step > 0 and not is_taken(scenario.steps[step - 1].probability, payout_id, step - 1):
        step -= 1
    return step > 0 and scenario.steps[step - 1].wait


def resume_step(scenario: Scenario, step: int) -> int:
    """Return the next step of a payout that a request has changed to PROCESSING when its next step was `step`.

    If that step leads to PROCESSING, the request has already done it, so skip it.
    """
    if step < len(scenario.steps) and scenario.steps[step].to == "PROCESSING":
        return step + 1
    return step


def read_steps(entries: Iterable[Mapping[str, Any]]) -> tuple[Step, ...]:
    """Read steps from decoded TOML or JSON. Raises KeyError or TypeError for an invalid one."""
    return tuple(Step(**{**entry, "after": timedelta(seconds=entry.get("after", 0))}) for entry in entries)


def read_match(entry: Mapping[str, Any]) -> Match:
    """Read a match from decoded TOML or JSON, with amounts as text. Raises TypeError or ValueError for an invalid one."""
    conditions = dict(entry)
    for name in ("amount_from", "amount_to"):
        if name in conditions:
            conditions[name] = Decimal(conditions[name])
    conditions["metadata"] = tuple(conditions.get("metadata", {}).items())
    return Match(**conditions)


def parse_catalogue(text: str) -> Catalogue:
    """Read the catalogue of built-in scenarios from TOML. Raises KeyError, TypeError or ValueError if it is invalid."""
    return Catalogue(
        Scenario(entry["name"], read_match(entry["match"]), read_steps(entry["steps"]))
        for entry in tomllib.loads(text)["scenario"]
    )
