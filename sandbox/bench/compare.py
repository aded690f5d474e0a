"""`psp bench compare`: run a bench alternately on another revision and on this code, with the same client and machine."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any, Literal

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sandbox.bench import report
from sandbox.bench.cpu import TOTAL, loop_seconds
from sandbox.bench.create import Progress
from sandbox.bench.database import Database
from sandbox.bench.e2e import E2eBench, Rate, parse_rate
from sandbox.bench.load import open_load
from sandbox.bench.machine import Machine, describe_machine
from sandbox.bench.reads import ReadsBench
from sandbox.bench.revision import ROOT, check_out
from sandbox.bench.stack import Stack, open_stack
from sandbox.bench.startup import StartupBench
from sandbox.bench.wait_for import WaitForBench
from sandbox.bench.wallets import BulkCreditBench, SummaryBench
from sandbox.bench.world import WorldBench

Better = Literal["higher", "lower"]
Measure = Callable[[], Mapping[str, Any]]
"""Takes one measurement of one sandbox, and returns the figures that the bench's `--json` prints."""
PrepareBench = Callable[[Stack], AbstractContextManager[Measure]]
"""Prepares a sandbox for measurements. It is called for the other revision's sandbox first."""

_UNITS = {"bulk-credit": "row", "reads": "read", "startup": "start"}
"""The unit of CPU time for a bench without payouts."""
_CPU_NAME = re.compile(r"^cpu_us_per_(\w+)\.")
_LABELS = {"payout": "CPU", "summary": "read", "payout_read": "payout", "balance_read": "balance"}
"""How the report names the unit of CPU time."""
_MIN_SHARE = 0.02
"""The smallest share of all CPU time that is compared. The kernel counts ticks of 10 ms, so smaller figures are noise."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure's medians for the other revision and this code. `ratio` is `current` / `revision`; None if `revision` is 0."""

    revision: float
    current: float
    ratio: float | None
    better: Better
    ratios: Sequence[float | None]
    """The ratio of each round."""

    @property
    def verdict(self) -> str:
        """The difference in words, such as `8 % better`."""
        if self.ratio is None:
            return ""
        gain = (self.ratio - 1 if self.better == "higher" else 1 - self.ratio) * 100
        return "the same" if abs(gain) < 0.5 else f"{abs(gain):.0f} % {'better' if gain > 0 else 'worse'}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The figures of all rounds: `revision_rounds` of the other revision, `current_rounds` of this code."""

    machine: Machine
    bench: str
    revision: str
    """The other revision's commit. This code's commit is in `machine`."""
    revision_rounds: Sequence[Mapping[str, float]]
    current_rounds: Sequence[Mapping[str, float]]

    @property
    def figures(self) -> dict[str, Figure]:
        """The figures that can be compared."""
        return compare_figures(self.revision_rounds, self.current_rounds)


def compare(
    revision: str, bench: str, prepare: PrepareBench, rounds: int, api_processes: int, workers: int, progress: Progress
) -> Comparison:
    """Measure the other revision and this code alternately, `rounds` times each. Raises BenchError.

    Both sandboxes run the whole time; the one that is not measured is idle.
    """
    with ExitStack() as closing:
        progress(f"checking out {revision}", 0)
        other = closing.enter_context(check_out(revision))
        progress("starting both sandboxes", 0)
        folders = (other.folder, ROOT)
        stacks = [closing.enter_context(open_stack(None, api_processes, workers, folder)) for folder in folders]
        machine = describe_machine(Database(stacks[1].database_url).version)
        progress("warming up", 0)
        measures = [closing.enter_context(prepare(stack)) for stack in stacks]
        of_revision: list[dict[str, float]] = []
        of_current: list[dict[str, float]] = []
        for number in range(1, rounds + 1):
            names = (other.commit[:12], "this code")
            for name, measure, figures in zip(names, measures, (of_revision, of_current), strict=True):
                progress(f"round {number}: {name}", 0)
                pace = loop_seconds()
                figures.append(flatten(measure()) | {"loop_s": pace})
                progress(f"round {number}: {name}", 1)
    return Comparison(machine, bench, other.commit, of_revision, of_current)


def compare_figures(
    revision_rounds: Sequence[Mapping[str, float]], current_rounds: Sequence[Mapping[str, float]]
) -> dict[str, Figure]:
    """Return the medians and ratios of the figures that every round has and that can be better or worse."""
    found = {}
    for name in revision_rounds[0]:
        better = better_direction(name)
        if better is None or not all(name in figures for figures in (*revision_rounds, *current_rounds)):
            continue
        revision, current = ([figures[name] for figures in rounds] for rounds in (revision_rounds, current_rounds))
        if _is_small_share(name, revision_rounds) and _is_small_share(name, current_rounds):
            continue
        ratios = [_ratio(a, b) for a, b in zip(revision, current, strict=True)]
        medians = median(revision), median(current)
        found[name] = Figure(*medians, _ratio(*medians), better, ratios)
    return found


def better_direction(name: str) -> Better | None:
    """Return whether higher or lower is better for a figure; None if it does not measure the sandbox's performance."""
    if name.endswith(("_rps", "_per_second")):
        return "higher"
    if name.endswith(("_ms", "seconds")) or name.startswith("cpu_us_per_") or name in ("missing", "behind", "backlog"):
        return "lower"
    return None


def flatten(figures: Mapping[str, Any]) -> dict[str, float]:
    """Flatten nested figures: `cpu_us_per_payout.api`."""
    flat: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": number for inner, number in value.items()}
        else:
            flat[name] = value
    return flat


def _ratio(revision: float, current: float) -> float | None:
    return current / revision if revision else None


def _is_small_share(name: str, rounds: Sequence[Mapping[str, float]]) -> bool:
    prefix, _, kind = name.rpartition(".")
    if not prefix.startswith("cpu_us_per_") or kind == TOTAL:
        return False
    return median(figures[name] for figures in rounds) < _MIN_SHARE * median(figures[f"{prefix}.{TOTAL}"] for figures in rounds)


def bench_preparer(bench: str, options: Mapping[str, Any]) -> PrepareBench:
    """Return a function that prepares a sandbox for measurements of a bench. `options` are those of the bench's command.

    Raises KeyError for an unknown bench, and ValueError for a wrong rate.
    """

    def create(stack: Stack) -> AbstractContextManager[Measure]:
        return _prepare_create(stack, options["connections"], options["merchants"], options["webhooks"], options["seconds"])

    def world(stack: Stack) -> Mapping[str, Any]:
        return report.world_json(WorldBench(stack, options["payouts"], 1, options["clients"]).run())

    def summary(stack: Stack) -> Mapping[str, Any]:
        return report.summary_json(SummaryBench(stack, options["seconds"], 1, options["connections"]).run())

    def reads(stack: Stack) -> Mapping[str, Any]:
        return report.reads_json(ReadsBench(stack, options["seconds"], 1, options["connections"]).run())

    def bulk_credit(stack: Stack) -> Mapping[str, Any]:
        return report.bulk_credit_json(BulkCreditBench(stack, options["rows"]).run())

    def startup(stack: Stack) -> Mapping[str, Any]:
        assert stack.source is not None  # `compare` starts both from a directory
        return report.startup_json(StartupBench(stack.source, 1).run())

    def wait_for(stack: Stack) -> Mapping[str, Any]:
        bench = WaitForBench(stack, options["rate"], options["seconds"], options["held"], options["connections"])
        return report.wait_for_json(bench.run())

    preparers: dict[str, Callable[[], PrepareBench]] = {
        "create": lambda: create,
        "e2e": lambda: _E2e(options).prepare,
        "wait-for": lambda: partial(_prepare_standalone, wait_for),
        "summary": lambda: partial(_prepare_standalone, summary),
        "reads": lambda: partial(_prepare_standalone, reads),
        "startup": lambda: partial(_prepare_standalone, startup),
        "bulk-credit": lambda: partial(_prepare_standalone, bulk_credit),
        "world": lambda: partial(_prepare_standalone, world),
    }
    return preparers[bench]()


@contextmanager
def _prepare_create(stack: Stack, connections: int, merchants: int, webhooks: int, seconds: int) -> Iterator[Measure]:
    """Prepare the create bench. It runs without pgbench, because here the other revision is the baseline."""

    def measure() -> Mapping[str, Any]:
        run = load.run(seconds)
        return {
            "http_rps": run.http_rps,
            "p50_ms": run.p50_ms,
            "p99_ms": run.p99_ms,
            "cpu_us_per_payout": run.cpu_us,
        }

    with open_load(stack, "bench compare", connections, merchants, webhooks) as load:
        load.warm_up()
        yield measure
        load.check()


@contextmanager
def _prepare_standalone(run: Callable[[Stack], Mapping[str, Any]], stack: Stack) -> Iterator[Measure]:
    """Prepare a bench that creates its own merchants for each measurement."""
    yield partial(run, stack)


class _E2e:
    """The e2e bench. A fractional rate is a fraction of the other revision's top rate, for both sandboxes.

    Both run at that same rate, because times at different rates cannot be compared.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._rate: Rate = parse_rate(options["rate"])

    @contextmanager
    def prepare(self, stack: Stack) -> Iterator[Measure]:
        options = self._options
        if self._rate.is_fraction:
            self._rate = Rate(self._rate.per_second(stack, options["connections"], options["merchants"]))

        def measure() -> Mapping[str, Any]:
            bench = E2eBench(
                stack, self._rate, options["seconds"], options["connections"], options["drain"], options["merchants"],
                options["webhooks"],
            )  # fmt: skip
            return report.e2e_json(bench.run())

        yield measure


def compare_json(result: Comparison) -> dict[str, Any]:
    """Return the commits, the machine's speed during the measurements, and both sandboxes' figures with their ratios."""
    shown = {name: asdict(figure) for name, figure in result.figures.items()}
    for figure in shown.values():
        figure["revision"], figure["current"] = round(figure["revision"], 4), round(figure["current"], 4)
        figure["ratio"] = None if figure["ratio"] is None else round(figure["ratio"], 3)
        figure["ratios"] = [None if ratio is None else round(ratio, 3) for ratio in figure["ratios"]]
    first = result.current_rounds[0]
    rate = {"rate": first["rate"]} if "rate" in first else {}
    pace = {"revision": _pace(result.revision_rounds), "current": _pace(result.current_rounds)}
    return {
        "revision": result.revision,
        "current": result.machine.commit,
        "bench": result.bench,
        **rate,
        "rounds": len(result.current_rounds),
        "loop_s": pace,
        "figures": shown,
    }


def compare_report(result: Comparison, command: str) -> Group:
    """Render one line per figure: both medians, the ratio, and whether it is better."""
    title = f"{result.bench}, medians of {len(result.current_rounds)} rounds"
    if "rate" in result.current_rounds[0]:
        title += f", {result.current_rounds[0]['rate']:,.0f} creates per second"
    columns = ("", result.revision[:7], "this code", "ratio", "rounds", "better", "")
    table = Table(*columns, title=title, box=SIMPLE, pad_edge=False, collapse_padding=True)
    table.columns[0].no_wrap = True
    for column in table.columns[1:5]:
        column.justify = "right"
    for name, figure in result.figures.items():
        known = [ratio for ratio in figure.ratios if ratio is not None]
        span = f"{min(known):.2f}–{max(known):.2f}" if known else "–"
        ratio = Text("–" if figure.ratio is None else f"{figure.ratio:.3f}", "bold")
        values = (f"{value:,.1f}" if value >= 10 else f"{value:.3f}" for value in (figure.revision, figure.current))
        label = _CPU_NAME.sub(lambda found: f"{_LABELS.get(found[1], found[1])} µs, ", name)
        table.add_row(label, *values, ratio, span, figure.better, figure.verdict)
    return Group(
        Text(result.machine.line),
        Text(f"$ {command}"),
        table,
        Text(
            "A ratio is this code's figure divided by the revision's. `rounds` shows the lowest and the highest ratio. CPU is "
            f"the time per {_UNITS.get(result.bench, 'payout')}. For reference, summing a million squares in Python took "
            f"{_pace(result.revision_rounds):.3f} s (revision) and {_pace(result.current_rounds):.3f} s (this code) during "
            "these rounds."
        ),
    )


def _pace(rounds: Sequence[Mapping[str, float]]) -> float:
    return round(median(figures["loop_s"] for figures in rounds), 4)
