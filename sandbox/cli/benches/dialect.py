"""`psp bench dialect`: measure creates in a dialect, and native ones for comparison."""

from dataclasses import dataclass, field
from statistics import median
from typing import Final

from sandbox.cli.benches.cpu import TOTAL
from sandbox.cli.benches.database import Database
from sandbox.cli.benches.load import CreateLoad, LoadRun
from sandbox.cli.benches.machine import describe_machine
from sandbox.cli.benches.result import MS, RATE, RATIO, Figure, Progress, Result, cpu_figures
from sandbox.cli.benches.stack import BenchError, Stack, create_merchant
from sandbox.cli.benches.wrk import find_wrk
from sandbox.server.dialects.registration import BUILT_IN

_NATIVE: Final = "native"


@dataclass(frozen=True, slots=True)
class DialectBench:
    """The options of the bench: creates of both kinds alternately, `seconds` each, `rounds` times."""

    stack: Stack
    name: str
    seconds: int
    rounds: int
    connections: int
    progress: Progress = field(default_factory=Progress)

    def run(self) -> Result:
        """Measure. Raises BenchError if anything fails, or if there is no such dialect with a script."""
        find_wrk()
        self.progress.expect(2 * self.rounds * self.seconds)
        database = Database(self.stack.database_url)
        loads = {_NATIVE: self._load(database), self.name: self._load(database, is_native=False)}
        runs: dict[str, list[LoadRun]] = {kind: [] for kind in loads}
        for load in loads.values():
            load.warm_up()
        for number in range(self.rounds):
            # Take turns in going first, so that neither profits from what the other has left behind.
            for kind in sorted(loads, reverse=number % 2 == 1):
                self.progress(f"round {number + 1}: {kind}")
                runs[kind].append(loads[kind].run(self.seconds))
                self.progress(f"round {number + 1}: {kind}", self.seconds)
        for load in loads.values():
            load.check()
        return Result(machine=describe_machine(database.version), figures=self._figures(runs))

    def _load(self, database: Database, *, is_native: bool = True) -> CreateLoad:
        merchant = create_merchant(self.stack, "bench dialect")
        if is_native:
            return CreateLoad(self.stack, database, [merchant], self.connections)
        dialect = next((dialect for dialect in BUILT_IN if dialect.name == self.name), None)
        if dialect is None or dialect.comparison is None or dialect.load_script is None:
            raise BenchError(f"There is no dialect {self.name} that can be measured.")
        account = dialect.comparison.account_of(merchant.merchant_id)
        script = str(dialect.load_script)
        return CreateLoad(self.stack, database, [merchant], self.connections, script=script, paths=[account])

    def _figures(self, runs: dict[str, list[LoadRun]]) -> list[Figure]:
        figures: list[Figure] = []
        for kind, measured in runs.items():
            figures += [
                Figure(f"{kind}/http_rps", [run.http_rps for run in measured], RATE),
                Figure(f"{kind}/p50_ms", [run.p50_ms for run in measured], MS),
                *(
                    Figure(f"{kind}/{figure.name}", figure.rounds, figure.unit)
                    for figure in cpu_figures("payout", [run.cpu_us for run in measured])
                ),
            ]
        cpu, p50 = ({kind: median(map(of, runs[kind])) for kind in runs} for of in (_cpu_of, _p50_of))
        ratios = {"cpu": cpu[self.name] / cpu[_NATIVE], "p50": p50[self.name] / p50[_NATIVE]}
        return [*figures, *(Figure(f"ratio/{name}", [ratio], RATIO) for name, ratio in ratios.items())]


def _cpu_of(run: LoadRun) -> float:
    return run.cpu_us[TOTAL]


def _p50_of(run: LoadRun) -> float:
    return run.p50_ms
