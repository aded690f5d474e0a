"""`psp bench create`: measure creates over HTTP and, alternately, the same writes by pgbench."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import median

from sandbox.cli.benches.load import LoadRun, http_figures, open_load
from sandbox.cli.benches.machine import describe_machine
from sandbox.cli.benches.pgbench import CLIENTS, METHODS, find_pgbench, open_pgbench
from sandbox.cli.benches.preload import preload
from sandbox.cli.benches.result import COUNT, RATE, RATIO, Figure, Progress, Result
from sandbox.cli.benches.stack import BenchError, Stack, check_audit, create_merchant

_PGBENCH_WARM_UP_SECONDS = 2
_WAYS = tuple(product(METHODS, CLIENTS))


@dataclass(frozen=True, slots=True)
class CreateBench:
    """The options of the bench. Each measurement takes `seconds`. `preload` payouts are stored first."""

    stack: Stack
    seconds: int
    rounds: int
    connections: int
    merchants: int = 1
    webhooks: int = 0
    preload: int = 0
    progress: Progress = field(default_factory=Progress)

    def run(self) -> Result:
        """Measure. Raises BenchError if anything fails or a response is wrong."""
        find_pgbench()
        if self.preload and self.merchants > 1:
            raise BenchError("--preload stores payouts of one merchant only; omit --merchants.")
        self.progress.expect(1 + self.preload + self.rounds * (1 + len(_WAYS)) * self.seconds)
        runs: list[LoadRun] = []
        tps: dict[tuple[str, int], list[float]] = {way: [] for way in _WAYS}
        with open_load(self.stack, "bench create", self.connections, self.merchants, self.webhooks) as load:
            database = load.database
            machine = describe_machine(database.version)
            pgbench_merchant = create_merchant(self.stack, "bench create: pgbench")
            if self.preload:
                self.progress(f"storing {self.preload} payouts")
                preload(database, load.merchants[0], self.preload, lambda count: self.progress("storing payouts", count))
            self.progress("warming up", 1)
            load.warm_up()
            with open_pgbench(self.stack, pgbench_merchant, database, database.sample(load.merchants[0])) as pgbench:
                for method in METHODS:
                    pgbench.run(method, CLIENTS[0], _PGBENCH_WARM_UP_SECONDS)
                database.analyze()
                for number in range(1, self.rounds + 1):
                    self.progress(f"round {number}: HTTP")
                    runs.append(load.run(self.seconds))
                    self.progress(f"round {number}: HTTP", self.seconds)
                    for method, clients in _WAYS:
                        self.progress(f"round {number}: pgbench, {method}, {clients} clients")
                        tps[method, clients].append(pgbench.run(method, clients, self.seconds))
                        self.progress(f"round {number}: pgbench, {method}, {clients} clients", self.seconds)
            self.progress("auditing")
            load.check()
            check_audit(self.stack, pgbench_merchant)
            counts = {"stored_before": self.preload, "created": database.count_payouts(load.merchants) - self.preload}
        counts |= {"merchants": self.merchants, "webhooks": self.webhooks}
        return Result(
            machine=machine,
            figures=[*create_figures(runs, tps), *(Figure(name, [count], COUNT) for name, count in counts.items())],
            notes=["No create was refused. `unsettled` payouts were left when a round's load ended. The audit is clean."],
        )


def create_figures(runs: Sequence[LoadRun], tps: Mapping[tuple[str, int], Sequence[float]]) -> list[Figure]:
    """Return the figures of all rounds. A ratio compares HTTP with pgbench at its better number of clients."""
    figures = http_figures(runs)
    http_rps = median(run.http_rps for run in runs)
    for method in METHODS:
        best = max(median(tps[method, clients]) for clients in CLIENTS)
        figures += [Figure(f"pgbench_{method}_tps", [best], RATE), Figure(f"ratio_{method}", [http_rps / best], RATIO)]
    return figures + [Figure(f"pgbench/{method}_{clients}", rates, RATE) for (method, clients), rates in tps.items()]
