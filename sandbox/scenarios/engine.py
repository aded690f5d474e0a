"""What a payout does next. Pure: the catalogue, the payout's place in it and the time come in, transitions go out."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Step:
    """One change: its target state, how long after the change before it, and what it says of a failure."""

    to: str
    after: timedelta
    failure_code: str | None
    wait: bool
    """Nothing follows by itself; the steps behind it are for a payout that is released."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named path, and what chooses it: an account suffix, or an amount from which on it holds."""

    name: str
    suffix: str | None
    amount_from: Decimal | None
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """The steps to take now, the step that comes after them, and when it is due (None: nothing by itself)."""

    taken: tuple[tuple[int, Step], ...]
    step: int
    due_at: datetime | None


class Catalogue:
    """All scenarios, by name, suffix and amount."""

    def __init__(self, scenarios: Iterable[Scenario]) -> None:
        self.scenarios = tuple(scenarios)
        self._by_name = {scenario.name: scenario for scenario in self.scenarios}
        self._by_suffix = {scenario.suffix: scenario for scenario in self.scenarios if scenario.suffix}
        self._by_amount = [(s.amount_from, s) for s in self.scenarios if s.amount_from is not None]

    def named(self, name: str) -> Scenario:
        """The scenario of that name. Raises KeyError."""
        return self._by_name[name]

    def choose(self, amount: Decimal, suffix: str, default: str) -> Scenario:
        """The scenario of a new payout: by amount, then by suffix, then the merchant's default (a name)."""
        for least, scenario in self._by_amount:
            if amount >= least:
                return scenario
        return self.after_review(suffix, default)

    def after_review(self, suffix: str, default: str) -> Scenario:
        """The scenario of a payout whose review was passed: by suffix, then the default."""
        return self._by_suffix.get(suffix) or self._by_name[default]


def due_after(scenario: Scenario, step: int, now: datetime) -> datetime | None:
    """When step number `step` falls due if the change before it happened at `now`."""
    if step >= len(scenario.steps) or (step > 0 and scenario.steps[step - 1].wait):
        return None
    return now + scenario.steps[step].after


def decide(scenario: Scenario, step: int, now: datetime) -> Decision:
    """Take the step that is due at `now`, and all behind it that wait for nothing.

    `step` is the number of the step that fell due. Bounded by the scenario's length.
    """
    taken: list[tuple[int, Step]] = []
    due_at: datetime | None = now
    while due_at is not None and due_at <= now and step < len(scenario.steps):
        taken.append((step, scenario.steps[step]))
        step += 1
        due_at = due_after(scenario, step, now)
    return Decision(tuple(taken), step, due_at)


def resume_step(scenario: Scenario, step: int) -> int:
    """Where a payout goes on that somebody moved to PROCESSING by hand from its place at `step`.

    A step to PROCESSING that comes next has just been done; otherwise the path goes on where it stood.
    """
    if step < len(scenario.steps) and scenario.steps[step].to == "PROCESSING":
        return step + 1
    return step


def parse_catalogue(text: str) -> Catalogue:
    """Read the catalogue from TOML. Raises KeyError or ValueError for a wrong one: it is part of the program."""
    return Catalogue(_scenario(entry) for entry in tomllib.loads(text)["scenario"])


def _scenario(entry: dict[str, Any]) -> Scenario:
    amount = entry.get("amount_from")
    return Scenario(
        name=entry["name"],
        suffix=entry.get("suffix"),
        amount_from=None if amount is None else Decimal(amount),
        steps=tuple(
            Step(
                to=step["to"],
                after=timedelta(seconds=step.get("after", 0)),
                failure_code=step.get("failure_code"),
                wait=step.get("wait", False),
            )
            for step in entry["steps"]
        ),
    )
