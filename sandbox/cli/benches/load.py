"""Full load: each connection sends the next create after the last response. Used by `psp bench create` and comparisons."""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvloop

from sandbox.cli.benches.database import Database
from sandbox.cli.benches.receiver import Received, Receiver
from sandbox.cli.benches.result import COUNT, MS, RATE, Figure, cpu_figures
from sandbox.cli.benches.stack import BenchError, Merchant, Stack, check_audit, create_endpoint, create_merchant
from sandbox.cli.benches.wrk import find_wrk, run_wrk
from sandbox.webhooks.signing.standard_webhooks import decode_secret

WARM_UP_SECONDS = 2
_TOP_RATE_SECONDS = 3
_EVENTS = 3
"""Events of each payout: created, processing, succeeded."""
_DELIVERY_SECONDS = 600.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoadRun:
    """The figures of one run. `unsettled` is the number of payouts that the worker had not settled when the load ended."""

    http_rps: float
    p50_ms: float
    p99_ms: float
    created: int
    unsettled: int
    cpu_us: Mapping[str, float]
    """CPU microseconds per payout, by kind of process, until all are settled and all webhooks are delivered."""
    switches: Mapping[str, float]
    """How often the processes' main threads waited, per payout, by kind of process."""
    transactions: float
    """Transactions of the database per payout."""


@dataclass(slots=True)
class CreateLoad:
    """Full load for some merchants over `connections` connections. Each event goes to `webhooks` endpoints."""

    stack: Stack
    database: Database
    merchants: Sequence[Merchant]
    connections: int
    webhooks: int = 0
    received: Received = field(default_factory=Received)
    script: str = "create.lua"
    paths: Sequence[str] = ("/",)
    """See `run_wrk`."""

    def run(self, seconds: int) -> LoadRun:
        """Create payouts for `seconds`, then wait until they are settled and their webhooks delivered.

        Raises BenchError if a request fails, a count is wrong or a webhook is invalid.
        """
        before = self.database.count_payouts(self.merchants)
        transactions = self.database.count_transactions()
        expected = len(self.received.ids)
        with self.stack.cpu() as cpu:
            run = run_wrk(self.stack, self.merchants, self.connections, seconds, self.script, self.paths)
            unsettled = self.database.drain(self.merchants)
            created = self.database.count_payouts(self.merchants) - before
            self._await_deliveries(expected + created * _EVENTS * self.webhooks)
        # When wrk stops, each connection may have a request in flight: its payout is stored, but wrk has not read the response.
        if not run.requests <= created <= run.requests + self.connections:
            raise BenchError(f"wrk received {run.requests} responses, but {created} payouts were stored.")
        transactions = self.database.count_transactions() - transactions
        return LoadRun(
            run.rps, run.p50_ms, run.p99_ms, created, unsettled, cpu.micros_per(created), cpu.switches_per(created),
            transactions / created,
        )  # fmt: skip

    def warm_up(self) -> None:
        """Create payouts for a moment, then update the planner's statistics, so that it does not plan for empty tables."""
        self.run(WARM_UP_SECONDS)
        self.database.analyze()

    def check(self) -> None:
        """Audit the merchants' ledgers. Raises BenchError."""
        for merchant in self.merchants:
            check_audit(self.stack, merchant)

    def _await_deliveries(self, expected: int) -> None:
        deadline = time.monotonic() + _DELIVERY_SECONDS
        while len(self.received.ids) < expected:
            if time.monotonic() > deadline:
                missing = expected - len(self.received.ids)
                raise BenchError(f"{missing} of {expected} webhooks had not arrived after {_DELIVERY_SECONDS:.0f} seconds.")
            time.sleep(0.05)
        self.received.check()


def http_figures(runs: Sequence[LoadRun]) -> list[Figure]:
    """Return the figures of all rounds."""
    return [
        Figure("http_rps", [run.http_rps for run in runs], RATE),
        Figure("p50_ms", [run.p50_ms for run in runs], MS),
        Figure("p99_ms", [run.p99_ms for run in runs], MS),
        Figure("unsettled", [run.unsettled for run in runs], COUNT),
        *cpu_figures("payout", [run.cpu_us for run in runs]),
    ]


@contextmanager
def open_load(stack: Stack, name: str, connections: int, merchants: int, webhooks: int) -> Iterator[CreateLoad]:
    """Create merchants with `webhooks` endpoints each, and run their webhook receiver. Raises BenchError."""
    find_wrk()
    database = Database(stack.database_url)
    created = [create_merchant(stack, name) for _ in range(merchants)]
    with ExitStack() as closing:
        received = Received()
        if webhooks:
            url = closing.enter_context(_run_receiver(received))
            received.secrets |= create_endpoints(stack, created, url, webhooks)
        yield CreateLoad(stack, database, created, connections, webhooks, received)


def create_endpoints(stack: Stack, merchants: Sequence[Merchant], url: str, webhooks: int) -> dict[str, bytes]:
    """Create `webhooks` endpoints for each merchant below the URL. Return their secrets by path. Raises BenchError."""
    paths = {f"/{number}/{endpoint}": merchant for number, merchant in enumerate(merchants) for endpoint in range(webhooks)}
    return {path: decode_secret(create_endpoint(stack, merchant, url + path)) for path, merchant in paths.items()}


def top_rate(stack: Stack, connections: int, merchants: int) -> float:
    """Return the creates per second at full load, without webhooks. Raises BenchError."""
    with open_load(stack, "bench: top rate", connections, merchants, 0) as load:
        load.warm_up()
        return load.run(_TOP_RATE_SECONDS).http_rps


@contextmanager
def _run_receiver(received: Received) -> Iterator[str]:
    """Run a webhook receiver in a thread, because the caller blocks on wrk. Yields its URL."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, T]) -> T:
        future: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(work, loop)
        return future.result()

    receiver = Receiver(received)
    try:
        yield run(receiver.open())
    finally:
        run(receiver.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
