"""`psp bench create`: creates over HTTP, and the same writes by the database's own benchmark, in turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from sandbox.bench.database import Database
from sandbox.bench.machine import Machine, look
from sandbox.bench.pgbench import CLIENTS, WAYS, find_pgbench, open_pgbench
from sandbox.bench.preload import preload
from sandbox.bench.stack import BenchError, Merchant, Stack, check_audit, create_merchant
from sandbox.bench.wrk import WrkRun, find_wrk, run_wrk

WARM_UP_SECONDS = 2

Progress = Callable[[str, int], None]
"""Told what is being done, and how much of the whole has been done since the last time."""


@dataclass(frozen=True, slots=True)
class Round:
    """One turn: creates over HTTP, then pgbench both ways with each number of clients.

    `unsettled` are payouts that the worker had still to settle when the creates over HTTP ended.
    """

    http_rps: float
    p50_ms: float
    p99_ms: float
    unsettled: int
    pgbench: Mapping[tuple[str, int], float]


@dataclass(frozen=True, slots=True)
class CreateResult:
    """All rounds, and their medians."""

    machine: Machine
    stored_before: int
    created: int
    rounds: Sequence[Round]

    @property
    def http_rps(self) -> float:
        """Creates a second over HTTP."""
        return median(turn.http_rps for turn in self.rounds)

    @property
    def p50_ms(self) -> float:
        """Half of the creates over HTTP were quicker."""
        return median(turn.p50_ms for turn in self.rounds)

    @property
    def p99_ms(self) -> float:
        """All but one of a hundred creates over HTTP were quicker."""
        return median(turn.p99_ms for turn in self.rounds)

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
    preload: int = 0
    progress: Progress = field(default=lambda what, done: None)

    @property
    def steps(self) -> int:
        """How much `progress` will be told of in all."""
        return 1 + self.preload + self.rounds * (1 + len(WAYS) * len(CLIENTS)) * self.seconds

    def run(self) -> CreateResult:
        """Measure. Raises BenchError when anything fails, or when an answer was not what it should be."""
        find_wrk()
        find_pgbench()
        database = Database(self.stack.database_url)
        machine = look(database.version)
        merchant = create_merchant(self.stack, "bench create")
        opponent = create_merchant(self.stack, "bench create: pgbench")
        if self.preload:
            self.progress(f"storing {self.preload} payouts", 0)
            preload(database, merchant, self.preload, lambda count: self.progress("storing payouts", count))
        self.progress("warming up", 1)
        self._http(database, merchant, WARM_UP_SECONDS)
        with open_pgbench(self.stack, opponent, database, database.sample(merchant)) as pgbench:
            for way in WAYS:
                pgbench.run(way, CLIENTS[0], WARM_UP_SECONDS)
            database.analyze()
            rounds = []
            for number in range(1, self.rounds + 1):
                self.progress(f"round {number}: HTTP", 0)
                http, unsettled = self._http(database, merchant, self.seconds)
                self.progress(f"round {number}: HTTP", self.seconds)
                rates = {}
                for way in WAYS:
                    for clients in CLIENTS:
                        self.progress(f"round {number}: pgbench, {way}, {clients} clients", 0)
                        rates[way, clients] = pgbench.run(way, clients, self.seconds)
                        self.progress(f"round {number}: pgbench, {way}, {clients} clients", self.seconds)
                rounds.append(Round(http.rps, http.p50_ms, http.p99_ms, unsettled, rates))
        self.progress("auditing", 0)
        check_audit(self.stack, merchant)
        check_audit(self.stack, opponent)
        return CreateResult(machine, self.preload, database.count_payouts(merchant) - self.preload, rounds)

    def _http(self, database: Database, merchant: Merchant, seconds: int) -> tuple[WrkRun, int]:
        before = database.count_payouts(merchant)
        run = run_wrk(self.stack, merchant, self.connections, seconds)
        unsettled = database.drain(merchant)
        stored = database.count_payouts(merchant) - before
        # When wrk stops, a request may be under way on each connection: stored, and its answer not seen.
        if not run.requests <= stored <= run.requests + self.connections:
            raise BenchError(f"wrk saw {run.requests} creates answered, and {stored} payouts were stored.")
        return run, unsettled
