"""`psp bench create`: measure creates over HTTP and, alternately, the same writes by pgbench."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from sandbox.bench.load import LoadRun, open_load
from sandbox.bench.machine import Machine, describe_machine
from sandbox.bench.pgbench import CLIENTS, METHODS, find_pgbench, open_pgbench
from sandbox.bench.preload import preload
from sandbox.bench.stack import BenchError, Stack, check_audit, create_merchant

_PGBENCH_WARM_UP_SECONDS = 2

Progress = Callable[[str, int], None]
"""Called with a description of the current step, and the number of steps done since the last call."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round: creates over HTTP, then pgbench with both methods, each with each number of clients."""

    http: LoadRun
    pgbench: Mapping[tuple[str, int], float]


@dataclass(frozen=True, slots=True)
class CreateResult:
    """The figures of all rounds, and their medians."""

    machine: Machine
    stored_before: int
    created: int
    merchants: int
    webhooks: int
    rounds: Sequence[Round]

    @property
    def http_rps(self) -> float:
        """Creates per second over HTTP."""
        return median(round_.http.http_rps for round_ in self.rounds)

    @property
    def p50_ms(self) -> float:
        """The median latency of creates over HTTP."""
        return median(round_.http.p50_ms for round_ in self.rounds)

    @property
    def p99_ms(self) -> float:
        """The 99th percentile of the latency of creates over HTTP."""
        return median(round_.http.p99_ms for round_ in self.rounds)

    @property
    def cpu_us(self) -> dict[str, float]:
        """CPU microseconds per payout, by kind of process."""
        return medians([round_.http.cpu_us for round_ in self.rounds])

    def tps(self, method: str, clients: int) -> float:
        """Return pgbench's transactions per second."""
        return median(round_.pgbench[method, clients] for round_ in self.rounds)

    def best(self, method: str) -> float:
        """Return pgbench's transactions per second with its better number of clients."""
        return max(self.tps(method, clients) for clients in CLIENTS)

    def ratio(self, method: str) -> float:
        """Return the sandbox's rate over HTTP divided by pgbench's."""
        return self.http_rps / self.best(method)


@dataclass(frozen=True, slots=True)
class CreateBench:
    """The options of the bench. Each measurement takes `seconds`."""

    stack: Stack
    seconds: int
    rounds: int
    connections: int
    merchants: int = 1
    webhooks: int = 0
    preload: int = 0
    progress: Progress = field(default=lambda what, done: None)

    @property
    def steps(self) -> int:
        """The total number of steps that `progress` counts."""
        return 1 + self.preload + self.rounds * (1 + len(METHODS) * len(CLIENTS)) * self.seconds

    def run(self) -> CreateResult:
        """Measure. Raises BenchError if anything fails or a response is wrong."""
        find_pgbench()
        if self.preload and self.merchants > 1:
            raise BenchError("--preload stores payouts of one merchant only; omit --merchants.")
        with open_load(self.stack, "bench create", self.connections, self.merchants, self.webhooks) as load:
            database = load.database
            machine = describe_machine(database.version)
            pgbench_merchant = create_merchant(self.stack, "bench create: pgbench")
            if self.preload:
                self.progress(f"storing {self.preload} payouts", 0)
                preload(database, load.merchants[0], self.preload, lambda count: self.progress("storing payouts", count))
            self.progress("warming up", 1)
            load.warm_up()
            with open_pgbench(self.stack, pgbench_merchant, database, database.sample(load.merchants[0])) as pgbench:
                for method in METHODS:
                    pgbench.run(method, CLIENTS[0], _PGBENCH_WARM_UP_SECONDS)
                database.analyze()
                rounds = []
                for number in range(1, self.rounds + 1):
                    self.progress(f"round {number}: HTTP", 0)
                    http = load.run(self.seconds)
                    self.progress(f"round {number}: HTTP", self.seconds)
                    rates = {}
                    for method in METHODS:
                        for clients in CLIENTS:
                            self.progress(f"round {number}: pgbench, {method}, {clients} clients", 0)
                            rates[method, clients] = pgbench.run(method, clients, self.seconds)
                            self.progress(f"round {number}: pgbench, {method}, {clients} clients", self.seconds)
                    rounds.append(Round(http, rates))
            self.progress("auditing", 0)
            load.check()
            check_audit(self.stack, pgbench_merchant)
            created = database.count_payouts(load.merchants) - self.preload
        return CreateResult(machine, self.preload, created, self.merchants, self.webhooks, rounds)


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each figure that every round has."""
    shared = [name for name in rounds[0] if all(name in figures for figures in rounds)]
    return {name: median(figures[name] for figures in rounds) for name in shared}
