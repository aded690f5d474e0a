"""What a payout does next. Pure: scenarios, the payout's place in one and the time come in, transitions go out."""

import hashlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from sandbox.domain.errors import invalid

HEADER: Final = "X-Sandbox-Scenario"
"""The header of a create that names a scenario, or what a rule looks for."""


_FINAL: Final = frozenset({"FAILED", "CANCELLED", "REJECTED", "RETURNED"})


@dataclass(frozen=True, slots=True)
class Step:
    """One change: its target state, how long after the change before it, and what it says of a failure."""

    to: str
    after: timedelta = timedelta(0)
    failure_code: str | None = None
    psp_reference: str | None = None
    probability: float = 1.0
    """How likely the step is taken; a payout that does not take it goes on with the next one. A final one ends the path."""
    wait: bool = False
    """Nothing follows by itself; the steps behind it are for a payout that is released."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a payout when its scenario is chosen. `header` is its create's X-Sandbox-Scenario."""

    amount: Decimal
    account_number: str
    bank_code: str | None
    wallet_code: str | None
    user_id: str | None
    metadata: Mapping[str, str]
    header: str | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """What chooses a scenario: all that is not None must hold."""

    suffix: str | None = None
    account_number: str | None = None
    bank_code: str | None = None
    wallet_code: str | None = None
    amount_from: Decimal | None = None
    amount_to: Decimal | None = None
    user_id: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    scenario_header: str | None = None

    def holds(self, facts: Facts) -> bool:
        """Whether a payout is meant."""
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

    def members(self) -> tuple[str, ...]:
        """The names of what must hold."""
        return tuple(name for name in self.__slots__ if getattr(self, name) not in (None, ()))


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named path and what chooses it: a built-in one, or a merchant's own rule, which has an id."""

    name: str
    match: Match
    steps: tuple[Step, ...]
    id: str | None = None
    path: str | None = None
    """The steps of a merchant's own rule as they are stored; a payout takes them along."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The scenario of a payout, and what chose it: the members of its match, `name` or `default`."""

    scenario: Scenario
    matched_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """The steps to take now, the step that comes after them, and when it is due (None: nothing by itself)."""

    taken: tuple[tuple[int, Step], ...]
    step: int
    due_at: datetime | None


class Catalogue:
    """The built-in scenarios, by name and suffix; the one for large amounts is a review."""

    def __init__(self, scenarios: Iterable[Scenario]) -> None:
        self.scenarios = tuple(scenarios)
        self._by_name = {scenario.name: scenario for scenario in self.scenarios}
        self._by_suffix = {scenario.match.suffix: scenario for scenario in self.scenarios if scenario.match.suffix}
        self._review = next((s for s in self.scenarios if s.match.amount_from is not None), None)

    def named(self, name: str) -> Scenario:
        """The scenario of that name. Raises KeyError."""
        return self._by_name[name]

    def knows(self, name: str) -> bool:
        """Whether a built-in scenario has that name."""
        return name in self._by_name

    def check_header(self, header: str | None, rules: Sequence[Scenario], field: str = HEADER) -> None:
        """Raise VALIDATION_ERROR about `field` if the header names no scenario and no rule looks for it."""
        if header is None or header in self._by_name:
            return
        if not any(header in (rule.name, rule.match.scenario_header) for rule in rules):
            raise invalid(field, "is not a known scenario; GET /sandbox/v1/scenarios lists them")

    def applying(self, default: str, review_threshold: Decimal | None) -> list[Scenario]:
        """The built-in scenarios that apply to a merchant, in their order: the review, by suffix, and the default."""
        by_suffix = [scenario for scenario in self.scenarios if scenario is not self._review]
        review = []
        if self._review is not None and review_threshold is not None:
            review = [replace(self._review, match=Match(amount_from=review_threshold))]
        return [*review, *by_suffix, Scenario(default, Match(), self.named(default).steps)]

    def choose(self, facts: Facts, rules: Sequence[Scenario], default: str, review_threshold: Decimal | None) -> Choice:
        """The scenario of a payout: the one its header names, the first rule that matches, by amount, suffix, default.

        `review_threshold` is the amount from which on payouts are reviewed, None for never.
        A rule that looks for the header's very value comes before the built-in scenario of that name.
        """
        header = facts.header
        if header is not None:
            named = next((rule for rule in rules if rule.name == header), None)
            if named is None and not any(rule.match.scenario_header == header for rule in rules):
                named = self._by_name.get(header)
            if named is not None:
                return Choice(named, ("name",))
        for rule in rules:
            if rule.match.holds(facts):
                return Choice(rule, rule.match.members())
        if header is not None and header in self._by_name:
            return Choice(self._by_name[header], ("name",))
        if self._review is not None and review_threshold is not None and facts.amount >= review_threshold:
            return Choice(self._review, ("amount_from",))
        return self.after_review(facts.account_number, default)

    def after_review(self, account_number: str, default: str) -> Choice:
        """The scenario of a payout whose review was passed: by suffix, then the default."""
        found = self._by_suffix.get(account_number[-4:])
        return Choice(self._by_name[default], ("default",)) if found is None else Choice(found, ("suffix",))


def begin(scenario: Scenario, step: int, now: datetime, payout_id: str, status: str = "PENDING") -> tuple[int, datetime | None]:
    """The first step at or behind `step` that a payout in `status` takes, and when it is due if it came there `now`."""
    while step < len(scenario.steps) and not (
        goes_on(status, scenario.steps[step].to) and is_taken(scenario.steps[step].probability, payout_id, step)
    ):
        step += 1
    return step, now + scenario.steps[step].after if step < len(scenario.steps) else None


def goes_on(status: str, target: str) -> bool:
    """Whether a path leads from a status to a step behind it; a step to which it does not is passed over.

    A final step that was taken ends a path, and behind SUCCESS only a return can come.
    """
    return status not in _FINAL and (status != "SUCCESS" or target == "RETURNED")


def is_taken(probability: float, payout_id: str, step: int) -> bool:
    """Whether a payout takes a step: always the same for the same payout and step."""
    if probability >= 1:
        return True
    return draw(f"{payout_id}:{step}") < probability


def draw(text: str) -> float:
    """A number from 0 up to 1 that follows from the text and looks like chance."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def decide(scenario: Scenario, step: int, now: datetime, payout_id: str = "") -> Decision:
    """Take the step that is due at `now`, and all behind it that wait for nothing.

    `step` is the number of the step that fell due. Bounded by the scenario's length.
    """
    taken: list[tuple[int, Step]] = []
    due_at: datetime | None = now
    while due_at is not None and due_at <= now and step < len(scenario.steps):
        found = scenario.steps[step]
        taken.append((step, found))
        step, due_at = begin(scenario, step + 1, now, payout_id, found.to)
        if found.wait:
            due_at = None
    return Decision(tuple(taken), step, due_at)


def stands_still(scenario: Scenario, step: int, payout_id: str) -> bool:
    """Whether nothing follows by itself for a payout before `step`: the path is at its end, or waits for a release."""
    if step >= len(scenario.steps):
        return True
    while step > 0 and not is_taken(scenario.steps[step - 1].probability, payout_id, step - 1):
        step -= 1
    return step > 0 and scenario.steps[step - 1].wait


def resume_step(scenario: Scenario, step: int) -> int:
    """Where a payout goes on that somebody moved to PROCESSING by hand from its place at `step`.

    A step to PROCESSING that comes next has just been done; otherwise the path goes on where it stood.
    """
    if step < len(scenario.steps) and scenario.steps[step].to == "PROCESSING":
        return step + 1
    return step


def read_steps(entries: Iterable[Mapping[str, Any]]) -> tuple[Step, ...]:
    """Steps from their form in TOML and JSON. Raises KeyError or TypeError for a wrong one."""
    return tuple(Step(**{**entry, "after": timedelta(seconds=entry.get("after", 0))}) for entry in entries)


def read_match(entry: Mapping[str, Any]) -> Match:
    """A match from its form in TOML and JSON, amounts as text. Raises TypeError or ValueError for a wrong one."""
    members = dict(entry)
    for name in ("amount_from", "amount_to"):
        if name in members:
            members[name] = Decimal(members[name])
    members["metadata"] = tuple(members.get("metadata", {}).items())
    return Match(**members)


def parse_catalogue(text: str) -> Catalogue:
    """Read the catalogue from TOML. Raises KeyError, TypeError or ValueError for a wrong one: it is part of the program."""
    return Catalogue(
        Scenario(entry["name"], read_match(entry["match"]), read_steps(entry["steps"]))
        for entry in tomllib.loads(text)["scenario"]
    )
