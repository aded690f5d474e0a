"""Creates over HTTP as fast as they are answered: the load of `psp bench create` and of the comparisons."""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import uvloop

from sandbox.bench.database import Database
from sandbox.bench.receiver import Received, Receiver
from sandbox.bench.stack import BenchError, Merchant, Stack, check_audit, create_endpoint, create_merchant
from sandbox.bench.wrk import find_wrk, run_wrk
from sandbox.domain.webhook_signing import decode_secret

WARM_UP_SECONDS = 2
_TOP_RATE_SECONDS = 3
_EVENTS = 3
"""Events that each payout causes: created, processing, succeeded."""
_DELIVERY_SECONDS = 600.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoadRun:
    """What one run measured. `unsettled` are payouts that the worker had still to settle when the load ended."""

    http_rps: float
    p50_ms: float
    p99_ms: float
    created: int
    unsettled: int
    cpu_us: Mapping[str, float]
    """CPU microseconds per payout by kind of process, until all is settled and all webhooks are delivered."""


@dataclass(slots=True)
class CreateLoad:
    """Creates of `merchants`, over so many connections; with `received`, each event goes to `webhooks` endpoints."""

    stack: Stack
    database: Database
    merchants: Sequence[Merchant]
    connections: int
    webhooks: int = 0
    received: Received = field(default_factory=Received)

    def run(self, seconds: int) -> LoadRun:
        """Create for so long, and wait for all that follows from it. Raises BenchError if anything is not as it should be."""
        before = self.database.count_payouts(self.merchants)
        expected = len(self.received.ids)
        with self.stack.cpu() as cpu:
            run = run_wrk(self.stack, self.merchants, self.connections, seconds)
            unsettled = self.database.drain(self.merchants)
            created = self.database.count_payouts(self.merchants) - before
            self._await_deliveries(expected + created * _EVENTS * self.webhooks)
        # When wrk stops, a request may be under way on each connection: stored, and its answer not seen.
        if not run.requests <= created <= run.requests + self.connections:
            raise BenchError(f"wrk saw {run.requests} creates answered, and {created} payouts were stored.")
        return LoadRun(run.rps, run.p50_ms, run.p99_ms, created, unsettled, cpu.micros_per(created))

    def warm_up(self) -> None:
        """Create for a moment, and let the planner see the tables with something in them."""
        self.run(WARM_UP_SECONDS)
        self.database.analyze()

    def check(self) -> None:
        """Have the ledgers of the merchants audited. Raises BenchError."""
        for merchant in self.merchants:
            check_audit(self.stack, merchant)

    def _await_deliveries(self, expected: int) -> None:
        deadline = time.monotonic() + _DELIVERY_SECONDS
        while len(self.received.ids) < expected:
            if time.monotonic() > deadline:
                missing = expected - len(self.received.ids)
                raise BenchError(f"{missing} of {expected} webhooks had not arrived after {_DELIVERY_SECONDS:.0f} seconds.")
            time.sleep(0.05)
        if self.received.refused:
            raise BenchError(f"{self.received.refused} webhooks were not valid: {'; '.join(self.received.reasons)}")


@contextmanager
def open_load(stack: Stack, name: str, connections: int, merchants: int, webhooks: int) -> Iterator[CreateLoad]:
    """New merchants, with `webhooks` endpoints each at a receiver that listens meanwhile. Raises BenchError."""
    find_wrk()
    database = Database(stack.database_url)
    made = [create_merchant(stack, name) for _ in range(merchants)]
    with ExitStack() as closing:
        received = Received()
        if webhooks:
            url = closing.enter_context(_listening(received))
            for number, merchant in enumerate(made):
                for endpoint in range(webhooks):
                    path = f"/{number}/{endpoint}"
                    received.secrets[path] = decode_secret(create_endpoint(stack, merchant, url + path))
        yield CreateLoad(stack, database, made, connections, webhooks, received)


def top_rate(stack: Stack, connections: int, merchants: int) -> float:
    """Creates a second that are answered when nothing limits them and nobody has webhooks. Raises BenchError."""
    with open_load(stack, "bench: top rate", connections, merchants, 0) as load:
        load.warm_up()
        return load.run(_TOP_RATE_SECONDS).http_rps


@contextmanager
def _listening(received: Received) -> Iterator[str]:
    """A receiver on a thread of its own, since the caller waits for wrk meanwhile; gives its URL."""
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
