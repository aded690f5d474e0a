"""`psp bench lone`: measure what a payout costs while few requests are in flight, what a test costs, and memory."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from sandbox.cli.benches.cpu import memory_megabytes
from sandbox.cli.benches.database import Database
from sandbox.cli.benches.load import LoadRun, open_load
from sandbox.cli.benches.machine import describe_machine
from sandbox.cli.benches.result import MS, RATE, RATIO, Figure, Progress, Result, Unit, cpu_figures
from sandbox.cli.benches.stack import Stack, create_merchant, create_payouts, delete_merchant, payout_body, post

CASES: Final[Mapping[str, tuple[int, int]]] = {
    "1_connection": (1, 1), "4_connections": (4, 1), "64_merchants": (64, 64), "full_load": (64, 1),
}  # fmt: skip
"""By name: the connections and the merchants."""
_TESTS: Final = 10
_PAYOUTS_PER_TEST: Final = 5
_PAYOUTS_IN_MEMORY: Final = 10_000
_MEGABYTES: Final = Unit(1, "lower")
_PER_PAYOUT: Final = Unit(2, "lower")


@dataclass(frozen=True, slots=True)
class LoneBench:
    """The options of the bench. Each case takes `seconds`, `rounds` times.

    `idle_megabytes` is the sandbox's memory before any load, if there has been some; None measures it.
    """

    stack: Stack
    seconds: int
    rounds: int
    webhooks: int = 0
    idle_megabytes: float | None = None
    progress: Progress = field(default_factory=Progress)

    def run(self) -> Result:
        """Measure. Raises BenchError if anything fails or a response is wrong."""
        self.progress.expect(self.rounds * (len(CASES) * self.seconds + 1))
        database = Database(self.stack.database_url)
        machine = describe_machine(database.version)
        idle = self.idle_megabytes
        memory = {"idle": memory_megabytes(self.stack.pid) if idle is None else idle}
        runs: dict[str, list[LoadRun]] = {name: [] for name in CASES}
        tests: list[Mapping[str, float]] = []
        with ExitStack() as closing:
            loads = {
                name: closing.enter_context(open_load(self.stack, f"bench lone: {name}", *size, self.webhooks))
                for name, size in CASES.items()
            }
            self.progress("warming up")
            for load in loads.values():
                load.warm_up()
            for number in range(1, self.rounds + 1):
                for name, load in loads.items():
                    self.progress(f"round {number}: {name}")
                    runs[name].append(load.run(self.seconds))
                    self.progress(f"round {number}: {name}", self.seconds)
                self.progress(f"round {number}: tests")
                tests.append(self._run_tests())
                self.progress(f"round {number}: tests", 1)
            for load in loads.values():
                load.check()
        merchant = create_merchant(self.stack, "bench lone: memory")
        create_payouts(self.stack, merchant, _PAYOUTS_IN_MEMORY)
        database.drain([merchant])
        memory["after_10000_payouts"] = memory_megabytes(self.stack.pid)
        return Result(
            machine=machine,
            figures=[
                *_figures(runs),
                *cpu_figures("test", tests),
                *(Figure(f"memory_mb/{when}", [megabytes], _MEGABYTES) for when, megabytes in memory.items()),
            ],
            notes=[
                "`switches_per_payout` counts how often the processes waited: for a reply, a request, a lock or a disk.",
                f"A test creates a merchant, freezes its clock, creates {_PAYOUTS_PER_TEST} payouts and deletes the merchant.",
                "Memory is the proportional set size of all processes.",
            ],
        )

    def _run_tests(self) -> Mapping[str, float]:
        """Return the CPU microseconds of one test, by kind of process."""
        with self.stack.cpu() as cpu:
            for _ in range(_TESTS):
                merchant = create_merchant(self.stack, "bench lone: test")
                post(self.stack, merchant, "/sandbox/v1/clock/freeze", {})
                for _ in range(_PAYOUTS_PER_TEST):
                    post(self.stack, merchant, "/api/v1/payouts", payout_body())
                delete_merchant(self.stack, merchant)
        return cpu.micros_per(_TESTS)


def _figures(runs: Mapping[str, Sequence[LoadRun]]) -> list[Figure]:
    figures: list[Figure] = []
    for name, measured in runs.items():
        figures += [
            Figure(f"{name}/http_rps", [run.http_rps for run in measured], RATE),
            Figure(f"{name}/p50_ms", [run.p50_ms for run in measured], MS),
            Figure(f"{name}/transactions_per_payout", [run.transactions for run in measured], _PER_PAYOUT),
            *(
                Figure(f"{name}/switches_per_payout/{kind}", [run.switches[kind] for run in measured], _PER_PAYOUT)
                for kind in measured[0].switches
            ),
            *(
                Figure(f"{name}/{figure.name}", figure.rounds, figure.unit)
                for figure in cpu_figures("payout", [run.cpu_us for run in measured])
            ),
        ]
    rates = {name: median(run.http_rps for run in measured) for name, measured in runs.items()}
    return [*figures, Figure("64_merchants/rate_to_full_load", [rates["64_merchants"] / rates["full_load"]], RATIO)]
