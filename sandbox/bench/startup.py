"""`psp bench startup`: measure what `psp up` costs until it is ready, with new data and with existing data."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from sandbox.bench.cpu import TOTAL, cpu_seconds
from sandbox.bench.database import Database
from sandbox.bench.machine import Machine, describe_machine
from sandbox.bench.stack import run_sandbox

STARTS: Final = ("cold", "warm")
"""The first start on a data directory, which creates and seeds the database, and the next one."""


@dataclass(frozen=True, slots=True)
class Start:
    """One start: seconds from the command until the ready file exists, and CPU seconds of all processes by kind until then."""

    wall_seconds: float
    cpu_seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class StartupResult:
    """The result of the bench: the starts of each kind."""

    machine: Machine
    starts: Mapping[str, Sequence[Start]]

    def wall_seconds(self, start: str) -> float:
        """Return the median of the wall-clock seconds."""
        return median(measured.wall_seconds for measured in self.starts[start])

    def cpu_seconds(self, start: str) -> float:
        """Return the median of the CPU seconds."""
        return median(measured.cpu_seconds[TOTAL] for measured in self.starts[start])


@dataclass(frozen=True, slots=True)
class StartupBench:
    """The options of the bench: `source` is the directory with the code. Each round starts it twice on new data."""

    source: Path
    rounds: int
    progress: Callable[[str, int], None] = field(default=lambda what, done: None)

    def run(self) -> StartupResult:
        """Measure. Raises BenchError if a start fails."""
        starts: dict[str, list[Start]] = {start: [] for start in STARTS}
        version = ""
        for number in range(1, self.rounds + 1):
            with tempfile.TemporaryDirectory(prefix="psp-bench-") as folder:
                for start in STARTS:
                    self.progress(f"round {number}: {start}", 0)
                    started = time.perf_counter()
                    with run_sandbox(["--data", str(Path(folder) / "data")], self.source) as stack:
                        seconds = time.perf_counter() - started
                        by_kind = cpu_seconds(stack.pid)
                        version = Database(stack.database_url).version
                    starts[start].append(Start(seconds, by_kind | {TOTAL: sum(by_kind.values())}))
                    self.progress(f"round {number}: {start}", 1)
        return StartupResult(describe_machine(version), starts)
