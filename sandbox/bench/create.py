"""`psp bench create`: creates over HTTP, and the same writes by the database's own benchmark, in turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from sandbox.bench.load import LoadRun, open_load
from sandbox.bench.machine import Machine, look
from sandbox.bench.pgbench import CLIENTS, WAYS, find_pgbench, open_pgbench
from sandbox.bench.preload import preload
from sandbox.bench.stack import BenchError, Stack, check_audit, create_merchant

_PGBENCH_WARM_UP_SECONDS = 2

Progress = Callable[[str, int], None]
"""Told what is being done, and how much of the whole has been done since the last time."""


@dataclass(frozen=True, slots=True)
class Round:
    """One turn: creates over HTTP, then pgbench both ways with each number of clients."""

    http: LoadRun
    pgbench: Mapping[tuple[str, int], float]


@dataclass(frozen=True, slots=True)
class CreateResult:
    """All rounds, and their medians."""

    machine: Machine
    stored_before: int
    created: int
    merchants: int
    webhooks: int
    rounds: Sequence[Round]

    @property
    def http_rps(self) -> float:
        """Creates a second over HTTP."""
        return median(turn.http.http_rps for turn in self.rounds)

    @property
    def p50_ms(self) -> float:
        """Half of the creates over HTTP were quicker."""
        return median(turn.http.p50_ms for turn in self.rounds)

    @property
    def p99_ms(self) -> float:
        """All but one of a hundred creates over HTTP were quicker."""
        return median(turn.http.p99_ms for turn in self.rounds)

    @property
    def cpu_us(self) -> dict[str, float]:
        """CPU microseconds per payout by kind of process."""
        return medians([turn.http.cpu_us for turn in self.rounds])

    def tps(self, way: str, clients: int) -> float:
        """Transactions a second of pgbench."""
        return median(turn.pgbench[way, clients] for turn in self.rounds)

    def best(self, way: str) -> float:
        """pgbench with the number of clients that suits it better."""
        return max(self.tps(way, clients) for clients in CLIENTS)

    def ratio(self, way: str) -> float:
        """How many creates the sandbox makes over HTTP while pgbench makes one."""
        return self.http_rps / self.best(way)


@dataclass(frozen=True, slots=True)
class CreateBench:
    """What is measured, and for how long: `seconds` is each measurement's."""

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
        """How much `progress` will be told of in all."""
        return 1 + self.preload + self.rounds * (1 + len(WAYS) * len(CLIENTS)) * self.seconds

    def run(self) -> CreateResult:
        """Measure. Raises BenchError when anything fails, or when an answer was not what it should be."""
        find_pgbench()
        if self.preload and self.merchants > 1:
            raise BenchError("--preload stores payouts of one merchant; leave out --merchants.")
        with open_load(self.stack, "bench create", self.connections, self.merchants, self.webhooks) as load:
            database = load.database
            machine = look(database.version)
            opponent = create_merchant(self.stack, "bench create: pgbench")
            if self.preload:
                self.progress(f"storing {self.preload} payouts", 0)
                stored = load.merchants[0]
                preload(database, stored, self.preload, lambda count: self.progress("storing payouts", count))
            self.progress("warming up", 1)
            load.warm_up()
            with open_pgbench(self.stack, opponent, database, database.sample(load.merchants[0])) as pgbench:
                for way in WAYS:
                    pgbench.run(way, CLIENTS[0], _PGBENCH_WARM_UP_SECONDS)
                database.analyze()
                rounds = []
                for number in range(1, self.rounds + 1):
                    self.progress(f"round {number}: HTTP", 0)
                    http = load.run(self.seconds)
                    self.progress(f"round {number}: HTTP", self.seconds)
                    rates = {}
                    for way in WAYS:
                        for clients in CLIENTS:
                            self.progress(f"round {number}: pgbench, {way}, {clients} clients", 0)
                            rates[way, clients] = pgbench.run(way, clients, self.seconds)
                            self.progress(f"round {number}: pgbench, {way}, {clients} clients", self.seconds)
                    rounds.append(Round(http, rates))
            self.progress("auditing", 0)
            load.check()
            check_audit(self.stack, opponent)
            created = database.count_payouts(load.merchants) - self.preload
        return CreateResult(machine, self.preload, created, self.merchants, self.webhooks, rounds)


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure that every round has."""
    shared = [name for name in rounds[0] if all(name in figures for figures in rounds)]
    return {name: median(figures[name] for figures in rounds) for name in shared}
