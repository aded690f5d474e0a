"""`psp bench compare`: one bench on another revision and on this code, in turn, by the same client on the same machine."""

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
from sandbox.bench.machine import Machine, look
from sandbox.bench.revision import ROOT, checked_out
from sandbox.bench.stack import Stack, open_stack
from sandbox.bench.wait_for import WaitForBench
from sandbox.bench.wallets import BulkCreditBench, SummaryBench
from sandbox.bench.world import WorldBench

Better = Literal["higher", "lower"]
Measure = Callable[[], Mapping[str, Any]]
"""One measurement of one sandbox; gives the figures that the bench's `--json` prints."""
Opened = Callable[[Stack], AbstractContextManager[Measure]]
"""Prepares a sandbox for measurements. The other revision's is the first one that it is given."""

_UNITS = {"bulk-credit": "row"}
"""What CPU time is counted for in a bench without payouts."""
_SMALLEST_SHARE = 0.02
"""Of all CPU time. The kernel counts CPU time in ticks of 10 ms, so the ratio of two small figures says nothing."""


@dataclass(frozen=True, slots=True)
class Figure:
    """The medians of one figure. `ratio` is `current` divided by `revision`; None if that is 0."""

    revision: float
    current: float
    ratio: float | None
    better: Better
    ratios: Sequence[float | None]
    """The ratio in each round."""

    @property
    def verdict(self) -> str:
        """The difference in words: `8 % better`."""
        if self.ratio is None:
            return ""
        gain = (self.ratio - 1 if self.better == "higher" else 1 - self.ratio) * 100
        return "the same" if abs(gain) < 0.5 else f"{abs(gain):.0f} % {'better' if gain > 0 else 'worse'}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rounds of both."""

    machine: Machine
    bench: str
    revision: str
    """The other revision's commit; `machine` has this code's."""
    before: Sequence[Mapping[str, float]]
    after: Sequence[Mapping[str, float]]

    @property
    def figures(self) -> dict[str, Figure]:
        """Each figure that can be compared."""
        return compare_figures(self.before, self.after)


def compare(
    revision: str, bench: str, opened: Opened, rounds: int, api_processes: int, workers: int, progress: Progress
) -> Comparison:
    """Measure the other revision and this code in turn, `rounds` times each. Raises BenchError.

    Both sandboxes run all the time; the one that is not measured has nothing to do.
    """
    with ExitStack() as closing:
        progress(f"checking out {revision}", 0)
        other = closing.enter_context(checked_out(revision))
        progress("starting both sandboxes", 0)
        folders = (other.folder, ROOT)
        stacks = [closing.enter_context(open_stack(None, api_processes, workers, folder)) for folder in folders]
        machine = look(Database(stacks[1].database_url).version)
        progress("warming up", 0)
        measures = [closing.enter_context(opened(stack)) for stack in stacks]
        found: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
        for number in range(1, rounds + 1):
            for name, measure, figures in zip((other.commit[:12], "this code"), measures, found, strict=True):
                progress(f"round {number}: {name}", 0)
                pace = loop_seconds()
                figures.append(flatten(measure()) | {"loop_s": pace})
                progress(f"round {number}: {name}", 1)
    return Comparison(machine, bench, other.commit, *found)


def compare_figures(before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]) -> dict[str, Figure]:
    """Medians and ratios of the figures that every round has and of which more, or less, is better."""
    found = {}
    for name in before[0]:
        better = better_direction(name)
        if better is None or not all(name in figures for figures in (*before, *after)):
            continue
        old, new = ([figures[name] for figures in rounds] for rounds in (before, after))
        if _is_small_share(name, before) and _is_small_share(name, after):
            continue
        ratios = [_ratio(a, b) for a, b in zip(old, new, strict=True)]
        found[name] = Figure(median(old), median(new), _ratio(median(old), median(new)), better, ratios)
    return found


def better_direction(name: str) -> Better | None:
    """Whether a bench's figure is better when it is higher or lower; None for one that does not measure the sandbox."""
    if name.endswith(("_rps", "_per_second")):
        return "higher"
    if name.endswith(("_ms", "seconds")) or name.startswith("cpu_us_per_") or name in ("missing", "backlog"):
        return "lower"
    return None


def flatten(figures: Mapping[str, Any]) -> dict[str, float]:
    """Figures in one level: `cpu_us_per_payout.api`."""
    flat: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": number for inner, number in value.items()}
        else:
            flat[name] = value
    return flat


def _ratio(before: float, after: float) -> float | None:
    return after / before if before else None


def _is_small_share(name: str, rounds: Sequence[Mapping[str, float]]) -> bool:
    prefix, _, kind = name.rpartition(".")
    if not prefix.startswith("cpu_us_per_") or kind == TOTAL:
        return False
    return median(figures[name] for figures in rounds) < _SMALLEST_SHARE * median(
        figures[f"{prefix}.{TOTAL}"] for figures in rounds
    )


def opened_bench(bench: str, options: Mapping[str, Any]) -> Opened:
    """How to measure a bench once, with the options of its command. KeyError for a bench that there is not."""

    def create(stack: Stack) -> AbstractContextManager[Measure]:
        return _creates(stack, options["connections"], options["merchants"], options["webhooks"], options["seconds"])

    def world(stack: Stack) -> Mapping[str, Any]:
        return report.world_json(WorldBench(stack, options["payouts"], 1, options["clients"]).run())

    def summary(stack: Stack) -> Mapping[str, Any]:
        return report.summary_json(SummaryBench(stack, options["seconds"], 1, options["connections"]).run())

    def bulk_credit(stack: Stack) -> Mapping[str, Any]:
        return report.bulk_credit_json(BulkCreditBench(stack, options["rows"]).run())

    def wait_for(stack: Stack) -> Mapping[str, Any]:
        bench = WaitForBench(stack, options["rate"], options["seconds"], options["held"], options["connections"])
        return report.wait_for_json(bench.run())

    opened: dict[str, Callable[[], Opened]] = {
        "create": lambda: create,
        "e2e": lambda: _E2e(options).open,
        "wait-for": lambda: partial(_whole, wait_for),
        "summary": lambda: partial(_whole, summary),
        "bulk-credit": lambda: partial(_whole, bulk_credit),
        "world": lambda: partial(_whole, world),
    }
    return opened[bench]()


@contextmanager
def _creates(stack: Stack, connections: int, merchants: int, webhooks: int, seconds: int) -> Iterator[Measure]:
    """Without pgbench, which is there to compare with where there is no other revision."""

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
def _whole(run: Callable[[Stack], Mapping[str, Any]], stack: Stack) -> Iterator[Measure]:
    """A bench that makes its own merchants each time."""
    yield partial(run, stack)


class _E2e:
    """A fraction of the top rate is the other revision's for both: at different rates times could not be compared."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._rate: Rate = parse_rate(options["rate"])

    @contextmanager
    def open(self, stack: Stack) -> Iterator[Measure]:
        options = self._options
        if self._rate.is_fraction:
            self._rate = Rate(self._rate.per_second(stack, options["connections"], options["merchants"]))

        def measure() -> Mapping[str, Any]:
            bench = E2eBench(
                stack, self._rate, options["seconds"], options["connections"], options["drain"], options["merchants"]
            )
            return report.e2e_json(bench.run())

        yield measure


def compare_json(result: Comparison) -> dict[str, Any]:
    """The commits, the machine's pace meanwhile, and each figure of both with its ratio."""
    shown = {name: asdict(figure) for name, figure in result.figures.items()}
    for figure in shown.values():
        figure["revision"], figure["current"] = round(figure["revision"], 4), round(figure["current"], 4)
        figure["ratio"] = None if figure["ratio"] is None else round(figure["ratio"], 3)
        figure["ratios"] = [None if ratio is None else round(ratio, 3) for ratio in figure["ratios"]]
    rate = {"rate": result.after[0]["rate"]} if "rate" in result.after[0] else {}
    pace = {"revision": _pace(result.before), "current": _pace(result.after)}
    return {
        "revision": result.revision,
        "current": result.machine.commit,
        "bench": result.bench,
        **rate,
        "rounds": len(result.after),
        "loop_s": pace,
        "figures": shown,
    }


def compare_report(result: Comparison, command: str) -> Group:
    """A line for each figure: both medians, the ratio, and whether that is better."""
    title = f"{result.bench}, medians of all rounds: {len(result.after)}"
    if "rate" in result.after[0]:
        title += f", {result.after[0]['rate']:,.0f} creates a second"
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
        label = name.replace("cpu_us_per_payout.", "CPU µs, ").replace("cpu_us_per_summary.", "read µs, ")
        table.add_row(label, *values, ratio, span, figure.better, figure.verdict)
    return Group(
        Text(result.machine.line),
        Text(f"$ {command}"),
        table,
        Text(
            "A ratio is this code divided by the revision; `rounds` has the lowest and the highest of all rounds; CPU is "
            f"time per {_UNITS.get(result.bench, 'payout')}. Meanwhile a sum of a million squares in Python took "
            f"{_pace(result.before):.3f} s (revision) and {_pace(result.after):.3f} s (this code)."
        ),
    )


def _pace(rounds: Sequence[Mapping[str, float]]) -> float:
    return round(median(figures["loop_s"] for figures in rounds), 4)
