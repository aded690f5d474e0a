"""`psp bench compare`: run a bench alternately on another revision and on this code, with the same client and machine."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from rich.text import Text

from sandbox.cli.benches.cpu import TOTAL, loop_seconds, memory_megabytes
from sandbox.cli.benches.database import Database
from sandbox.cli.benches.e2e import Rate
from sandbox.cli.benches.load import http_figures, open_load
from sandbox.cli.benches.machine import describe_machine
from sandbox.cli.benches.report import number
from sandbox.cli.benches.result import CPU, Bench, Figure, Progress, Result, Section, Unit
from sandbox.cli.benches.revision import ROOT, check_out
from sandbox.cli.benches.stack import Stack, open_stack

Measure = Callable[[], Sequence[Figure]]
"""Takes one measurement of one sandbox."""
PrepareBench = Callable[[Stack], AbstractContextManager[Measure]]
"""Prepares a sandbox for measurements. It is called for the other revision's sandbox first."""

_MIN_SHARE = 0.02
"""The smallest share of all CPU time that is compared. The kernel counts ticks of 10 ms, so smaller figures are noise."""


@dataclass(frozen=True, slots=True)
class Change:
    """A figure's rounds for the other revision and for this code."""

    unit: Unit
    revision: Sequence[float]
    current: Sequence[float]

    @property
    def ratios(self) -> list[float | None]:
        """This code's figure divided by the revision's, of each round; None if that is 0."""
        return [_ratio(a, b) for a, b in zip(self.revision, self.current, strict=True)]

    @property
    def ratio(self) -> float | None:
        """The ratio of the medians."""
        return _ratio(median(self.revision), median(self.current))

    @property
    def verdict(self) -> str:
        """The difference in words, such as `8 % better`."""
        if self.ratio is None:
            return ""
        gain = (self.ratio - 1 if self.unit.better == "higher" else 1 - self.ratio) * 100
        return "the same" if abs(gain) < 0.5 else f"{abs(gain):.0f} % {'better' if gain > 0 else 'worse'}"

    def to_json(self) -> dict[str, Any]:
        """Return the medians and the ratios."""
        return {
            "revision": round(median(self.revision), 4),
            "current": round(median(self.current), 4),
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "better": self.unit.better,
            "ratios": [None if ratio is None else round(ratio, 3) for ratio in self.ratios],
        }


def compare(
    revision: str, bench: str, prepare: PrepareBench, rounds: int, api_processes: int, workers: int, progress: Progress
) -> Result:
    """Measure the other revision and this code alternately, `rounds` times each. Raises BenchError.

    Both sandboxes run the whole time; the one that is not measured is idle.
    """
    with ExitStack() as closing:
        progress.expect(2 * rounds)
        progress(f"checking out {revision}")
        other = closing.enter_context(check_out(revision))
        progress("starting both sandboxes")
        folders = (other.folder, ROOT)
        stacks = [closing.enter_context(open_stack(None, api_processes, workers, folder)) for folder in folders]
        machine = describe_machine(Database(stacks[1].database_url).version)
        progress("warming up")
        measures = [closing.enter_context(prepare(stack)) for stack in stacks]
        measured: tuple[list[Sequence[Figure]], list[Sequence[Figure]]] = [], []
        paces: tuple[list[float], list[float]] = [], []
        for round_ in range(1, rounds + 1):
            names = (other.commit[:12], "this code")
            for name, measure, figures, pace in zip(names, measures, measured, paces, strict=True):
                progress(f"round {round_}: {name}")
                pace.append(loop_seconds())
                figures.append(measure())
                progress(f"round {round_}: {name}", 1)
    changes = compare_figures(*measured)
    rate = {figure.name: round(figure.median) for figure in measured[1][0] if figure.name == "rate"}
    loop_s = {"revision": round(median(paces[0]), 4), "current": round(median(paces[1]), 4)}
    return Result(
        machine=machine,
        data={
            "revision": other.commit,
            "current": machine.commit,
            "bench": bench,
            **rate,
            "rounds": rounds,
            "loop_s": loop_s,
            "figures": {name: change.to_json() for name, change in changes.items()},
        },
        sections=[_section(f"{bench}, medians, rounds: {rounds}", other.commit, changes)],
        notes=[
            "A ratio is this code's figure divided by the revision's. `rounds` shows the lowest and the highest ratio. CPU "
            f"is in µs. For reference, summing a million squares in Python took {loop_s['revision']:.3f} s (revision) and "
            f"{loop_s['current']:.3f} s (this code) during these rounds.",
            *(f"Both were measured at {per_second:,} creates per second." for per_second in rate.values()),
        ],
    )


def compare_figures(
    revision_rounds: Sequence[Sequence[Figure]], current_rounds: Sequence[Sequence[Figure]]
) -> dict[str, Change]:
    """Return the figures that every round has and that can be better or worse, except very small shares of CPU time."""
    rounds = [{figure.name: figure for figure in figures} for figures in (*revision_rounds, *current_rounds)]
    changes: dict[str, Change] = {}
    for name, figure in rounds[0].items():
        if figure.unit.better is not None and all(name in figures for figures in rounds):
            values = [figures[name].median for figures in rounds]
            changes[name] = Change(figure.unit, values[: len(revision_rounds)], values[len(revision_rounds) :])
    return {name.replace("/", "."): change for name, change in changes.items() if not _is_small_share(name, changes)}


def _ratio(revision: float, current: float) -> float | None:
    return current / revision if revision else None


def _is_small_share(name: str, changes: dict[str, Change]) -> bool:
    change = changes[name]
    total = changes.get(f"{name.rpartition('/')[0]}/{TOTAL}")
    if change.unit is not CPU or total is None:
        return False
    pairs = ((change.revision, total.revision), (change.current, total.current))
    return all(median(own) < _MIN_SHARE * median(of_all) for own, of_all in pairs)


def _section(title: str, commit: str, changes: dict[str, Change]) -> Section:
    rows: list[list[str | Text]] = []
    for name, change in changes.items():
        known = [ratio for ratio in change.ratios if ratio is not None]
        span = f"{min(known):.2f}–{max(known):.2f}" if known else "–"
        ratio = Text("–" if change.ratio is None else f"{change.ratio:.3f}", "bold")
        medians = (number(median(values)) for values in (change.revision, change.current))
        rows.append([name, *medians, ratio, span, change.verdict])
    return Section(title, ["", commit[:7], "this code", "ratio", "rounds", ""], rows)


def bench_preparer(bench: str, open_bench: "partial[Bench]") -> PrepareBench:
    """Return a function that prepares a sandbox for measurements of a bench. `open_bench` has the bench's options."""
    options = open_bench.keywords
    if bench == "create":
        return partial(_prepare_create, options)
    if bench == "e2e":
        return _E2e(open_bench).prepare
    once = partial(open_bench, rounds=1) if "rounds" in options else open_bench

    @contextmanager
    def prepare(stack: Stack) -> Iterator[Measure]:
        """Prepare a bench that creates its own merchants, or starts its own sandboxes, for each measurement."""
        target: dict[str, Any] = {"source": stack.source} if bench == "startup" else {"stack": stack}
        if bench == "lone":
            target["idle_megabytes"] = memory_megabytes(stack.pid)  # no later measurement finds the sandbox without load
        yield lambda: once(**target).run().figures

    return prepare


@contextmanager
def _prepare_create(options: dict[str, Any], stack: Stack) -> Iterator[Measure]:
    """Prepare the create bench. It runs without pgbench, because here the other revision is the baseline."""
    with open_load(stack, "bench compare", options["connections"], options["merchants"], options["webhooks"]) as load:
        load.warm_up()
        yield lambda: http_figures([load.run(options["seconds"])])
        load.check()


class _E2e:
    """The e2e bench. A fractional rate is a fraction of the other revision's top rate, for both sandboxes.

    Both run at that same rate, because times at different rates cannot be compared.
    """

    def __init__(self, open_bench: "partial[Bench]") -> None:
        self._open_bench = open_bench
        self._rate: Rate = open_bench.keywords["rate"]

    @contextmanager
    def prepare(self, stack: Stack) -> Iterator[Measure]:
        options = self._open_bench.keywords
        if self._rate.is_fraction:
            self._rate = Rate(self._rate.per_second(stack, options["connections"], options["merchants"]))
        yield lambda: self._open_bench(stack=stack, rate=self._rate).run().figures
