"""`psp bench scale`: measure what a payout costs the servers of a distributed database, next to one PostgreSQL server."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import asyncpg
import psutil  # type: ignore[import-untyped]  # the package has no types

from sandbox.cli.benches.cpu import cpu_seconds
from sandbox.cli.benches.database import Database
from sandbox.cli.benches.load import CreateLoad, open_load
from sandbox.cli.benches.machine import describe_machine
from sandbox.cli.benches.result import COUNT, CPU, OTHER, RATE, RATIO, Figure, Progress, Result
from sandbox.cli.benches.revision import ROOT
from sandbox.cli.benches.stack import BenchError, Merchant, Stack, call, run_sandbox
from sandbox.cli.benches.wrk import find_wrk, run_wrk
from sandbox.infrastructure.db.distributed.cluster import Cluster, Node, read_cluster
from sandbox.infrastructure.settings import LOOPBACK_HOSTS

IN_FLIGHT: Final = (1, 16, 128)
"""Requests in flight for one merchant."""
CORES_FOR_RATE: Final = 4
"""With fewer cores for each server, the servers share them, and a rate says nothing about more machines."""
_MERCHANTS_PER_NODE: Final = 8
_SETTLE_SECONDS: Final = 300.0
_SANDBOX: Final = ("--ephemeral", "--no-seed")


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU microseconds of the PostgreSQL processes per payout, until it is settled."""

    plain: float
    nodes: Mapping[str, float]
    """By node of the distributed database."""

    @property
    def ratio(self) -> float:
        """The CPU time of all nodes together, divided by that of one server without Citus."""
        return sum(self.nodes.values()) / self.plain


@dataclass(frozen=True, slots=True)
class ScaleBench:
    """The options of the bench. `cluster_url` names any node of a distributed database on this machine."""

    cluster_url: str
    seconds: int
    rounds: int
    idle_seconds: int
    progress: Progress = field(default_factory=Progress)

    def run(self) -> Result:
        """Measure. Raises BenchError if the database is not distributed, a node is on another machine, or anything fails."""
        cluster, servers = asyncio.run(_find_servers(self.cluster_url))
        find_wrk()  # before anything is measured
        self.progress.expect(self.rounds * len(IN_FLIGHT) * 2 + 2)
        self.progress("the database without a sandbox")
        idle = self._idle(servers)
        self.progress("the database without a sandbox", 1)
        with ExitStack() as closing:
            plain = closing.enter_context(run_sandbox(_SANDBOX, ROOT))
            distributed = closing.enter_context(run_sandbox(_SANDBOX, ROOT, {"DATABASE_URL": self.cluster_url}))
            assert plain.pid is not None
            servers_of_plain = {"plain": plain.pid}
            machine = describe_machine(Database(plain.database_url).version)
            idle_with_sandbox = self._idle(servers)
            self.progress("the database with an idle sandbox", 1)
            rounds: dict[int, list[Cost]] = {in_flight: [] for in_flight in IN_FLIGHT}
            for in_flight, costs in rounds.items():
                loads = [self._load(closing, stack, in_flight, 1) for stack in (plain, distributed)]
                for number in range(1, self.rounds + 1):
                    per_payout = []
                    for name, load, pids in zip(("plain", "distributed"), loads, (servers_of_plain, servers), strict=True):
                        self.progress(f"round {number}: {name}, {in_flight} in flight")
                        per_payout.append(self._cost(load, pids))
                        self.progress(f"round {number}: {name}, {in_flight} in flight", 1)
                    costs.append(Cost(per_payout[0]["plain"], per_payout[1]))
                for load in loads:
                    load.check()
            with_shards = len({shard.node for shard in cluster.shards})
            rates = {}
            if machine.cores >= CORES_FOR_RATE * len(servers):
                rates["plain_rps"] = self._rate(closing, plain, with_shards)
                rates["distributed_rps"] = self._rate(closing, distributed, with_shards)
        cores = f"A rate needs {CORES_FOR_RATE} cores for each server, and here they share {machine.cores}."
        return Result(
            machine=machine,
            figures=[
                Figure("nodes", [with_shards], COUNT),
                *scale_figures(rounds),
                Figure("idle_percent", [idle], OTHER),
                Figure("idle_percent_with_sandbox", [idle_with_sandbox], OTHER),
                *(Figure(name, [rate], RATE) for name, rate in rates.items()),
            ],
            notes=[f"`idle_percent` is the share of a core that all nodes use without a sandbox.{'' if rates else ' ' + cores}",
                   _arithmetic(rounds)],
        )  # fmt: skip

    def _load(self, closing: ExitStack, stack: Stack, in_flight: int, merchants: int) -> CreateLoad:
        load = closing.enter_context(open_load(stack, "bench scale", in_flight, merchants, 0))
        load.warm_up()
        return load

    def _cost(self, load: CreateLoad, servers: Mapping[str, int]) -> dict[str, float]:
        before = {name: _postgres_seconds(pid) for name, pid in servers.items()}
        created = run_wrk(load.stack, load.merchants, load.connections, self.seconds).requests
        for merchant in load.merchants:
            _await_settled(load.stack, merchant)
        return {name: (_postgres_seconds(pid) - before[name]) * 1e6 / created for name, pid in servers.items()}

    def _idle(self, servers: Mapping[str, int]) -> float:
        before = sum(map(_postgres_seconds, servers.values()))
        time.sleep(self.idle_seconds)
        return (sum(map(_postgres_seconds, servers.values())) - before) / self.idle_seconds * 100

    def _rate(self, closing: ExitStack, stack: Stack, nodes: int) -> float:
        load = self._load(closing, stack, max(IN_FLIGHT), nodes * _MERCHANTS_PER_NODE)
        return median(load.run(self.seconds).http_rps for _ in range(self.rounds))


def scale_figures(rounds: Mapping[int, Sequence[Cost]]) -> list[Figure]:
    """Return the cost of a payout on one server and on each node, and their ratio, by the number of requests in flight."""
    return [
        figure
        for in_flight, costs in rounds.items()
        for figure in (
            Figure(f"in_flight/{in_flight}/plain_cpu_us_per_payout", [cost.plain for cost in costs], CPU),
            *(
                Figure(f"in_flight/{in_flight}/cpu_us_per_payout/{node}", [cost.nodes[node] for cost in costs], CPU)
                for node in costs[0].nodes
            ),
            Figure(f"in_flight/{in_flight}/ratio", [cost.ratio for cost in costs], RATIO),
        )
    ]


def _arithmetic(rounds: Mapping[int, Sequence[Cost]]) -> str:
    ratios = [median(cost.ratio for cost in costs) for costs in rounds.values()]
    implied = (f"{count} nodes: " + " / ".join(f"{count / ratio:.1f}" for ratio in ratios) for count in (2, 4, 8))
    return (
        "Arithmetic, not measured: if CPU time of the database alone decided, and merchants were spread evenly, N nodes would "
        f"do N / ratio times the payouts of one server, at {' / '.join(map(str, rounds))} in flight. {', '.join(implied)}."
    )


def _postgres_seconds(pid: int) -> float:
    """Return the CPU seconds of the PostgreSQL processes among a process and its descendants."""
    return cpu_seconds(pid).get("postgres", 0.0)


def _await_settled(stack: Stack, merchant: Merchant) -> None:
    """Wait until the worker has settled all payouts. Asks the API: SQL on all nodes would cost more than the payouts."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    headers = {"X-API-KEY": merchant.api_key}
    for status in ("PENDING", "PROCESSING"):
        while call(stack, "GET", f"/api/v1/payouts?status={status}&limit=1", headers, None)["data"]:
            if time.monotonic() > deadline:
                raise BenchError(f"After {_SETTLE_SECONDS:.0f} seconds, not all payouts are settled.")
            time.sleep(0.1)


async def _find_servers(url: str) -> tuple[Cluster, dict[str, int]]:
    """Return the cluster, and the pid of each node's server on this machine."""
    try:
        conn = await asyncpg.connect(url, timeout=10)
        try:
            cluster = await read_cluster(conn)
        finally:
            await conn.close()
        if cluster is None:
            raise BenchError("The database is not distributed. Run psp distribute with its URL first.")
        return cluster, {str(node): await _find_server(url, node) for node in cluster.nodes}
    except (OSError, asyncpg.PostgresError) as error:
        raise BenchError(f"The distributed database does not respond: {type(error).__name__}: {error}") from error


async def _find_server(url: str, node: Node) -> int:
    """Return the pid of the node's postmaster, which is the parent of each of its connections."""
    conn = await asyncpg.connect(url, host=node.host, port=node.port, timeout=10)
    try:
        backend = psutil.Process(await conn.fetchval("SELECT pg_backend_pid()")) if node.host in LOOPBACK_HOSTS else None
        if backend is None or not backend.name().startswith("postgres"):
            raise BenchError(f"Node {node} is not on this machine, so its CPU time cannot be measured.")
        return int(backend.ppid())
    except psutil.Error:
        raise BenchError(f"The processes of node {node} are not visible on this machine.") from None
    finally:
        await conn.close()
