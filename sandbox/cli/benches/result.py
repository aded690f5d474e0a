"""The result of any bench: its figures, and the other parts of its report."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from sandbox.cli.benches.machine import Machine

if TYPE_CHECKING:
    from rich.text import Text


@dataclass(frozen=True, slots=True)
class Unit:
    """The rounding of a figure, and which direction is better; None if it does not measure the sandbox's performance."""

    digits: int
    better: Literal["higher", "lower"] | None = None


RATE: Final = Unit(1, "higher")
MS: Final = Unit(2, "lower")
SECONDS: Final = Unit(3, "lower")
CPU: Final = Unit(1, "lower")
"""CPU microseconds per payout, row or read."""
SHORTFALL: Final = Unit(0, "lower")
"""A count of what should have happened and did not."""
COUNT: Final = Unit(0)
RATIO: Final = Unit(3)
OTHER: Final = Unit(2)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its value in each round. The name `cpu_us_per_payout/api` is `api` in the JSON's `cpu_us_per_payout`."""

    name: str
    rounds: Sequence[float]
    unit: Unit

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return median(self.rounds)

    def rounded(self, value: float) -> float:
        """Return a value with the digits of the unit; without digits, as an integer."""
        return round(value, self.unit.digits or None)


@dataclass(frozen=True, slots=True)
class Section:
    """A table of the text report, for figures that do not fit into the one of all benches."""

    title: str
    columns: Sequence[str]
    rows: "Sequence[Sequence[str | Text]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a bench."""

    machine: Machine
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    """Sentences below the figures of the text report."""
    sections: Sequence[Section] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    """Further members of the JSON."""
    exceeded: Sequence[str] | None = None
    """The exceeded limits, one sentence each; None if the bench has no limits."""
    missing: int = 0
    """Webhooks or responses that did not arrive in time."""


class Bench(Protocol):
    """The options of a bench, ready to run."""

    def run(self) -> Result:
        """Measure. Raises BenchError if anything fails."""


class Progress:
    """The progress of a bench. This class ignores it; subclasses show it."""

    def expect(self, steps: int) -> None:
        """Set the total number of steps."""

    def __call__(self, what: str, done: int = 0) -> None:
        """Set the description of the current step, and add the number of steps done since the last call."""

    async def tick(self, what: str, seconds: int) -> None:
        """Add a step every second."""
        for _ in range(seconds):
            await asyncio.sleep(1)
            self(what, 1)


def cpu_figures(unit: str, rounds: Sequence[Mapping[str, float]]) -> list[Figure]:
    """Return the CPU microseconds per unit, for each kind of process that every round has."""
    kinds = [kind for kind in rounds[0] if all(kind in round_ for round_ in rounds)]
    return [Figure(f"cpu_us_per_{unit}/{kind}", [round_[kind] for round_ in rounds], CPU) for kind in kinds]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile by the nearest-rank method. Raises ValueError if there are no values."""
    if not values:
        raise ValueError("no values, so no percentile")
    return sorted(values)[max(0, ceil(len(values) * percent / 100) - 1)]


def latency_figures(seconds: Sequence[float]) -> list[Figure]:
    """Return p50, p95 and p99 in milliseconds. Raises ValueError if there are no values."""
    return [Figure(f"p{percent}_ms", [percentile(seconds, percent) * 1000], MS) for percent in (50, 95, 99)]
