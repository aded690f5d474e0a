"""`psp bench summary`: measure cached reads of a user's summary, and creates for comparison."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from sandbox.cli.benches.database import Database
from sandbox.cli.benches.machine import describe_machine
from sandbox.cli.benches.result import RATE, RATIO, Figure, Progress, Result, cpu_figures
from sandbox.cli.benches.stack import Stack, check_audit, create_merchant, create_users
from sandbox.cli.benches.wrk import find_wrk, run_wrk


@dataclass(frozen=True, slots=True)
class SummaryBench:
    """The options of the bench: reads and creates alternately, `seconds` each, `rounds` times."""

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
        merchant = create_merchant(self.stack, "bench summary")
        path = f"/api/v1/users/{create_users(self.stack, merchant, 1)[0]}/summary"
        reads: list[float] = []
        creates: list[float] = []
        read_cpu: list[Mapping[str, float]] = []
        create_cpu: list[Mapping[str, float]] = []
        for number in range(1, self.rounds + 1):
            self.progress(f"round {number}: summaries")
            with self.stack.cpu() as cpu:
                read = run_wrk(self.stack, [merchant], self.connections, self.seconds, "reads.lua", [path])
            reads.append(read.rps)
            read_cpu.append(cpu.micros_per(read.requests))
            self.progress(f"round {number}: creates", self.seconds)
            before = database.count_payouts([merchant])
            with self.stack.cpu() as cpu:
                creates.append(run_wrk(self.stack, [merchant], self.connections, self.seconds).rps)
                database.drain([merchant])
            create_cpu.append(cpu.micros_per(database.count_payouts([merchant]) - before))
            self.progress(f"round {number}: creates", self.seconds)
        check_audit(self.stack, merchant)
        figures = [Figure("summary_rps", reads, RATE), Figure("create_rps", creates, RATE)]
        figures += [Figure("ratio", [median(reads) / median(creates)], RATIO)]
        return Result(machine=machine, figures=figures + cpu_figures("summary", read_cpu) + cpu_figures("payout", create_cpu))
