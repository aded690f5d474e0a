"""`psp bench reads`: measure `GET /payouts/{id}` and `GET /balance`."""

from dataclasses import dataclass, field
from typing import Final

from sandbox.cli.benches.database import Database
from sandbox.cli.benches.machine import describe_machine
from sandbox.cli.benches.result import MS, RATE, Figure, Progress, Result, cpu_figures
from sandbox.cli.benches.stack import Stack, check_audit, create_merchant, create_payouts
from sandbox.cli.benches.wrk import WrkRun, find_wrk, run_wrk

_PAYOUTS: Final = 500
"""Number of payouts to read in turn. More would not fit into the environment variable that passes them to wrk."""


@dataclass(frozen=True, slots=True)
class ReadsBench:
    """The options of the bench: both kinds of reads alternately, `seconds` each, `rounds` times."""

    stack: Stack
    seconds: int
    rounds: int
    connections: int
    progress: Progress = field(default_factory=Progress)

    def run(self) -> Result:
        """Measure. Raises BenchError if anything fails."""
        find_wrk()
        self.progress.expect(2 * self.rounds * self.seconds)
        database = Database(self.stack.database_url)
        machine = describe_machine(database.version)
        merchant = create_merchant(self.stack, "bench reads")
        paths = {"payout": [f"/api/v1/payouts/{id_}" for id_ in create_payouts(self.stack, merchant, _PAYOUTS)]}
        paths["balance"] = ["/api/v1/balance"]
        database.drain([merchant])
        runs: dict[str, list[tuple[WrkRun, dict[str, float]]]] = {read: [] for read in paths}
        for number in range(1, self.rounds + 1):
            for read in paths:
                self.progress(f"round {number}: {read}")
                with self.stack.cpu() as cpu:
                    run = run_wrk(self.stack, [merchant], self.connections, self.seconds, "reads.lua", paths=paths[read])
                runs[read].append((run, cpu.micros_per(run.requests)))
                self.progress(f"round {number}: {read}", self.seconds)
        check_audit(self.stack, merchant)
        figures: list[Figure] = []
        for read, measured in runs.items():
            figures.append(Figure(f"{read}_rps", [run.rps for run, _ in measured], RATE))
            figures.append(Figure(f"{read}_p99_ms", [run.p99_ms for run, _ in measured], MS))
            figures += cpu_figures(f"{read}_read", [cpu_us for _, cpu_us in measured])
        return Result(machine=machine, figures=figures)
