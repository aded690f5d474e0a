"""`psp bench neighbors`: measure whether one merchant feels its neighbors.

A quiet merchant sends one create after another: in calm, then next to eight merchants that make noise, then in calm again.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final

from rich.text import Text

from sandbox.cli.benches.cpu import TOTAL, cpu_seconds
from sandbox.cli.benches.database import Database
from sandbox.cli.benches.machine import Machine, describe_machine
from sandbox.cli.benches.noise import KINDS
from sandbox.cli.benches.noise_process import NoiseTotals, open_noise
from sandbox.cli.benches.quiet import Latencies, Phase, Quiet, open_quiet
from sandbox.cli.benches.report import number
from sandbox.cli.benches.result import Progress, Result, Section, percentile
from sandbox.cli.benches.stack import BenchError, Merchant, Stack, create_endpoint, create_merchant, delete_merchant, open_stack

NEIGHBORS: Final = 8
MAX_RATIOS: Final[Mapping[int, float]] = {50: 3.0, 95: 5.0}
"""The limit of the ratio of each percentile, with noise to in calm."""
_SETTLED_CORES: Final = 0.15
"""Below this CPU use, the sandbox has nothing left to do."""
_SETTLE_SECONDS: Final = 60.0
_WARM_UP_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One phase: the latencies of the quiet merchant, and the CPU time of the sandbox per second, by kind of process."""

    latencies: Latencies
    cores: Mapping[str, float]

    def ms(self, percent: int) -> float:
        """Return a percentile, in milliseconds."""
        return percentile(self.latencies.seconds, percent) * 1000


@dataclass(frozen=True, slots=True)
class KindResult:
    """The phases of one kind of noise: calm before, noise, calm after."""

    kind: str
    before: Measured
    noise: Measured
    after: Measured
    totals: NoiseTotals
    noise_seconds: float

    def calm_ms(self, percent: int) -> float:
        """Return the mean of the percentiles in calm, in milliseconds."""
        return fmean((self.before.ms(percent), self.after.ms(percent)))

    def ratio(self, percent: int) -> float:
        """Return the percentile with noise, divided by the mean of the two in calm."""
        return self.noise.ms(percent) / self.calm_ms(percent)

    @property
    def noise_cores(self) -> float:
        """The CPU time per second of the process that made the noise."""
        return self.totals.cpu_seconds / self.noise_seconds

    @property
    def exceeded(self) -> list[str]:
        """The exceeded limits, as sentences without their subject."""
        found = [
            f"p{percent} is {self.ratio(percent):.1f} times that in calm, more than {limit:g}"
            for percent, limit in MAX_RATIOS.items()
            if self.ratio(percent) > limit
        ]
        for name, phase in (("in calm", self.before), ("with noise", self.noise), ("in calm afterwards", self.after)):
            for status, count in sorted(phase.latencies.statuses.items()):
                if status != 201:
                    found.append(f"the quiet merchant got {count} x {describe_status(status)} {name}")
            if phase.latencies.missing:
                found.append(f"{phase.latencies.missing} webhooks of the quiet merchant did not arrive {name}")
        for status, count in sorted(self.totals.statuses.items()):
            if status == 0 or status >= 500:
                reason = self.totals.reasons.get(status)
                found.append(f"the noise got {count} x {describe_status(status)}" + (f" ({reason})" if reason else ""))
        return found


@dataclass(frozen=True, slots=True)
class Failed:
    """A kind that could not be measured, and why."""

    kind: str
    reason: str

    @property
    def exceeded(self) -> list[str]:
        """The reason."""
        return [self.reason]


@dataclass(frozen=True, slots=True)
class Run:
    """All kinds, with one number of API processes."""

    processes: int
    kinds: Sequence[KindResult | Failed]

    @property
    def exceeded(self) -> list[str]:
        """The exceeded limits, one line each."""
        processes = f"{self.processes} API process{'es'[: 2 * (self.processes > 1)]}"
        return [f"{found.kind}, {processes}: {line}" for found in self.kinds for line in found.exceeded]


@dataclass(frozen=True, slots=True)
class NeighborsBench:
    """The options of the bench: for each number of API `processes`, three phases of `seconds` for each of the `kinds`."""

    processes: Sequence[int]
    kinds: Sequence[str]
    seconds: int
    connections: int
    progress: Progress = field(default_factory=Progress)

    def run(self) -> Result:
        """Measure. Raises BenchError if a sandbox does not start; a kind that cannot be measured is part of the result."""
        self.progress.expect(len(self.processes) * len(self.kinds))
        runs = []
        machine: Machine | None = None
        for processes in self.processes:
            with open_stack(None, processes, 1) as stack, open_quiet(stack) as quiet:
                machine = machine or describe_machine(Database(stack.database_url).version)
                with _merchant(stack) as merchant:
                    quiet.measure(Phase(merchant, _WARM_UP_SECONDS))
                runs.append(Run(processes, [self._kind(stack, quiet, processes, kind) for kind in self.kinds]))
        assert machine is not None  # there is at least one number of processes
        return neighbors_result(machine, runs, {"seconds": self.seconds, "connections": self.connections})

    def _kind(self, stack: Stack, quiet: Quiet, processes: int, kind: str) -> KindResult | Failed:
        try:
            found = self._measure_kind(stack, quiet, kind, lambda phase: self.progress(f"{kind}, {processes}: {phase}"))
        except BenchError as error:
            return Failed(kind, str(error))
        finally:
            self.progress(kind, 1)
        # The upload of a large file may take longer than the phase.
        if not KINDS[kind].expected & found.totals.statuses.keys() and (found.totals.statuses or not found.totals.unanswered):
            return Failed(kind, f"the noise had none of the expected responses: {dict(found.totals.reasons)}")
        return found

    def _measure_kind(self, stack: Stack, quiet: Quiet, kind: str, show: Callable[[str], None]) -> KindResult:
        with _merchant(stack) as merchant:
            with_webhooks = KINDS[kind].with_webhooks
            secret = create_endpoint(stack, merchant, f"{quiet.url}/0") if with_webhooks else None
            phase = Phase(merchant, self.seconds, secret)
            with ExitStack() as closing:
                noisy = [closing.enter_context(_merchant(stack)) for _ in range(NEIGHBORS)]
                # It ends before its merchants are deleted, which ends its backlog.
                with open_noise(stack, kind, noisy, self.connections) as noise:
                    show("calm")
                    _settle(stack)
                    before = _measure(stack, quiet, phase)
                    show("noise")
                    started = time.perf_counter()
                    noise.start()
                    loud = _measure(stack, quiet, phase)
                    totals = noise.stop()
                    seconds = time.perf_counter() - started
                show("cleaning up")
            _settle(stack)
            show("calm again")
            return KindResult(kind, before, loud, _measure(stack, quiet, phase), totals, seconds)


def neighbors_result(machine: Machine, runs: Sequence[Run], options: Mapping[str, int]) -> Result:
    """Return the result: the figures of each kind, what exceeds the limits, and a section for each number of processes."""
    limits = ", ".join(f"p{percent} ≤ {limit:g} times that in calm" for percent, limit in MAX_RATIOS.items())
    return Result(
        machine=machine,
        data={
            **options,
            "load": machine.load,
            "max_ratios": {f"p{percent}": limit for percent, limit in MAX_RATIOS.items()},
            "runs": [{"processes": run.processes, "kinds": {kind.kind: _figures(kind) for kind in run.kinds}} for run in runs],
        },
        sections=[_section(run) for run in runs],
        notes=[
            f"The latency of the quiet merchant in milliseconds, in calm (the mean before and after) → next to {NEIGHBORS} "
            "noisy merchants, and their ratio. For webhooks, the time from a create to its webhook. Responses are counted by "
            "status (late: none came in time). Cores are CPU seconds per second while there was noise: of the API processes / "
            "of the whole sandbox.",
            f"Limits: {limits}; only 201 for the quiet merchant; no 5xx and no lost connection for the noise.",
        ],
        exceeded=[line for run in runs for line in run.exceeded],
    )


def _figures(found: KindResult | Failed) -> dict[str, Any]:
    if isinstance(found, Failed):
        return {"error": found.reason}
    shown: dict[str, Any] = {}
    for percent in MAX_RATIOS:
        shown |= {
            f"p{percent}_ratio": round(found.ratio(percent), 2),
            f"p{percent}_ms": round(found.noise.ms(percent), 2),
            f"p{percent}_ms_in_calm": [round(phase.ms(percent), 2) for phase in (found.before, found.after)],
        }
    return shown | {
        "quiet_statuses": _statuses(found.noise.latencies.statuses),
        "quiet_statuses_in_calm": [_statuses(phase.latencies.statuses) for phase in (found.before, found.after)],
        "noise_statuses": _statuses(found.totals.statuses),
        "noise_unanswered": found.totals.unanswered,
        "cores": {kind: round(cores, 3) for kind, cores in found.noise.cores.items()},
        "cores_in_calm": [round(phase.cores["total"], 3) for phase in (found.before, found.after)],
        "noise_process_cores": round(found.noise_cores, 3),
    }


def _section(run: Run) -> Section:
    percentiles = [name for percent in MAX_RATIOS for name in (f"p{percent} ms", "ratio")]
    rows: list[list[str | Text]] = []
    for found in run.kinds:
        if isinstance(found, Failed):
            rows.append([found.kind, "not measured"])
            continue
        cells: list[str | Text] = []
        for percent, limit in MAX_RATIOS.items():
            ratio = found.ratio(percent)
            cells.append(f"{number(found.calm_ms(percent))} → {number(found.noise.ms(percent))}")
            cells.append(Text(f"{ratio:.1f}", "bold red" if ratio > limit else "bold"))
        noisy = _lines(found.totals.statuses) or f"late: {found.totals.unanswered}"
        cores = f"{found.noise.cores.get('api', 0.0):.2f}/{found.noise.cores['total']:.2f}"
        rows.append([found.kind, *cells, _lines(found.noise.latencies.statuses), noisy, cores])
    return Section(f"API processes: {run.processes}", ["noise", *percentiles, "quiet", "noisy", "cores"], rows)


def _statuses(statuses: Mapping[int, int]) -> dict[str, int]:
    return {describe_status(status): count for status, count in sorted(statuses.items())}


def _lines(statuses: Mapping[int, int]) -> str:
    return "\n".join(f"{status or 'none'}: {count}" for status, count in sorted(statuses.items()))


def describe_status(status: int) -> str:
    """Return a status as text; 0 stands for no response."""
    return str(status) if status else "no response"


@contextmanager
def _merchant(stack: Stack) -> Iterator[Merchant]:
    """Create a merchant, and delete it afterwards."""
    merchant = create_merchant(stack, "bench neighbors")
    try:
        yield merchant
    finally:
        delete_merchant(stack, merchant)


def _measure(stack: Stack, quiet: Quiet, phase: Phase) -> Measured:
    started, before = time.perf_counter(), cpu_seconds(stack.pid)
    latencies = quiet.measure(phase)
    return Measured(latencies, _cores(stack, started, before))


def _cores(stack: Stack, started: float, before: Mapping[str, float]) -> dict[str, float]:
    """Return the CPU seconds per second since `started`, by kind of process and in total."""
    after, elapsed = cpu_seconds(stack.pid), time.perf_counter() - started
    cores = {kind: (seconds - before.get(kind, 0.0)) / elapsed for kind, seconds in after.items()}
    return cores | {TOTAL: sum(cores.values())}


def _settle(stack: Stack) -> None:
    """Wait until the sandbox has nothing left to do, or a minute has passed."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        started, before = time.perf_counter(), cpu_seconds(stack.pid)
        time.sleep(1)
        if _cores(stack, started, before)[TOTAL] < _SETTLED_CORES:
            return
