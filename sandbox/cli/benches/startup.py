"""`psp bench startup`: measure what `psp up` costs until it is ready, with new data and with existing data."""

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.cli.benches.cpu import cpu_seconds
from sandbox.cli.benches.database import Database
from sandbox.cli.benches.machine import describe_machine
from sandbox.cli.benches.result import SECONDS, Figure, Progress, Result
from sandbox.cli.benches.stack import run_sandbox


@dataclass(frozen=True, slots=True)
class StartupBench:
    """The options of the bench: `source` is the directory with the code. Each round starts it twice on new data."""

    source: Path
    rounds: int
    progress: Progress = field(default_factory=Progress)

    def run(self) -> Result:
        """Measure. Raises BenchError if a start fails."""
        self.progress.expect(2 * self.rounds)
        measured: dict[str, list[float]] = {}
        for number in range(1, self.rounds + 1):
            with tempfile.TemporaryDirectory(prefix="psp-bench-") as folder:
                for start in ("cold", "warm"):
                    self.progress(f"round {number}: {start}")
                    started = time.perf_counter()
                    with run_sandbox(["--data", str(Path(folder) / "data")], self.source) as stack:
                        seconds = time.perf_counter() - started
                        by_kind = cpu_seconds(stack.pid)
                        version = Database(stack.database_url).version
                    measured.setdefault(f"{start}_cpu_seconds", []).append(sum(by_kind.values()))
                    measured.setdefault(f"{start}_wall_seconds", []).append(seconds)
                    self.progress(f"round {number}: {start}", 1)
        return Result(
            machine=describe_machine(version),
            figures=[Figure(name, values, SECONDS) for name, values in measured.items()],
            notes=["Cold is a start with new data, warm is the next start with the same data. The CPU seconds are those of "
                   "all processes."],
        )  # fmt: skip
