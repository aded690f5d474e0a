"""`psp bench webhooks`: compare deliveries with a bare HTTP client, and measure how failing endpoints delay a working one."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import uvloop

from sandbox.cli.benches.cpu import held, pids_of
from sandbox.cli.benches.database import Database
from sandbox.cli.benches.machine import describe_machine
from sandbox.cli.benches.pacer import send_creates
from sandbox.cli.benches.receiver import Received, Receiver, ServedConnection, close_transports
from sandbox.cli.benches.result import COUNT, MS, RATE, RATIO, Figure, Progress, Result, cpu_figures, percentile
from sandbox.cli.benches.sink import Sink, run_sink
from sandbox.cli.benches.stack import (
    BenchError,
    Merchant,
    Stack,
    check_audit,
    create_endpoint,
    create_merchant,
    create_payouts,
    delete_merchant,
)
from sandbox.webhooks.signing.standard_webhooks import ID_HEADER, decode_secret

NEIGHBORS: Final = 3
"""Number of endpoints next to the one whose latency is measured."""
_STAYS_PENDING: Final = "12345678900004"
"""An account number whose payouts stay PENDING, so each causes one webhook."""
_CLIENT_CONNECTIONS: Final = 64
_WARM_UP_DELIVERIES: Final = 1000
_WARM_UP_SECONDS: Final = 1.0
_ARRIVE_SECONDS: Final = 60.0
_UNRESOLVABLE: Final = "http://bench.invalid/"  # RFC 6761: no such name exists
_BODIES: Final = "SELECT id::text, body FROM events WHERE merchant_id = $1 ORDER BY id"
_RECORDED: Final = "SELECT count(*) FROM webhook_attempts WHERE merchant_id = $1 AND status = 200"


@dataclass(frozen=True, slots=True)
class Round:
    """The figures of one round."""

    sandbox_rate: float
    client_rate: float
    """Both in webhooks per second."""
    cpu_us: Mapping[str, float]
    """CPU microseconds of the sandbox per webhook, by kind of process."""
    working_p95_ms: float
    failing_p95_ms: float
    """The time from a create to its payout.succeeded at a working endpoint, next to three working or three failing ones."""


@dataclass(frozen=True, slots=True)
class WebhooksBench:
    """The options of the bench.

    Each round delivers `deliveries` webhooks, posts the same bodies with the bare client, and creates `rate` payouts per second
    for `seconds`, twice.
    """

    stack: Stack
    deliveries: int
    rate: int
    seconds: int
    rounds: int
    progress: Progress = field(default_factory=Progress)

    def run(self) -> Result:
        """Measure. Raises BenchError if a webhook is missing, invalid or not recorded."""
        if not pids_of(self.stack.pid, "worker"):
            raise BenchError("This bench holds the workers while it creates payouts, so they must run on this machine.")
        self.progress.expect(4 * self.rounds)
        database = Database(self.stack.database_url)
        machine = describe_machine(database.version)
        with run_sink() as sink:
            self.progress("warming up")
            self._deliver(database, sink, min(self.deliveries, _WARM_UP_DELIVERIES))
            rounds = [self._round(database, sink, number) for number in range(1, self.rounds + 1)]
        return Result(
            machine=machine,
            figures=[Figure("deliveries", [self.deliveries], COUNT), *webhook_figures(rounds)],
            notes=[
                f"Each webhook was recorded with one successful attempt. p95 is that of payout.succeeded at {self.rate:,} "
                "payouts per second."
            ],
        )

    def _round(self, database: Database, sink: Sink, number: int) -> Round:
        self.progress(f"round {number}: the sandbox")
        sandbox_rate, cpu_us, webhooks = self._deliver(database, sink, self.deliveries)
        self.progress(f"round {number}: the bare client", 1)
        sink.reset()
        uvloop.run(_post_all(sink.url, webhooks))
        client_rate = len(webhooks) / (time.perf_counter() - sink.wait(len(webhooks)))
        p95_ms = {}
        # Every second round measures in the opposite order, so that neither always profits from being the first.
        for failing in (False, True) if number % 2 else (True, False):
            self.progress(f"round {number}: next to {'failing' if failing else 'working'} endpoints", 1)
            p95_ms[failing] = uvloop.run(self._p95_ms(failing))
        self.progress(f"round {number}", 1)
        return Round(sandbox_rate, client_rate, cpu_us, p95_ms[False], p95_ms[True])

    def _deliver(
        self, database: Database, sink: Sink, count: int
    ) -> tuple[float, Mapping[str, float], list[tuple[str, bytes]]]:
        """Create `count` webhooks while the workers are held, and let them deliver and record.

        Otherwise the rate would be that of the creates and of the payouts' steps. It is measured from the first arrival until
        the last attempt is recorded. Returns it with the CPU time per webhook, and each webhook's id and body.
        """
        merchant = create_merchant(self.stack, "bench webhooks")
        create_endpoint(self.stack, merchant, sink.url)
        sink.reset()
        with contextlib.ExitStack() as measuring:
            with held(pids_of(self.stack.pid, "worker")):
                create_payouts(self.stack, merchant, count, _STAYS_PENDING)
                database.analyze()
                cpu = measuring.enter_context(self.stack.cpu())
            first_at = sink.wait(count)
            database.wait_for_attempts(merchant, every=0.01)
            ended_at = time.perf_counter()
        recorded = database.with_connection(lambda conn: conn.fetchval(_RECORDED, merchant.merchant_id))
        if recorded != count:
            raise BenchError(f"{count} webhooks were delivered, but {recorded} successful attempts are recorded.")
        check_audit(self.stack, merchant)
        records = database.with_connection(lambda conn: conn.fetch(_BODIES, merchant.merchant_id))
        webhooks = [(record["id"], record["body"].encode()) for record in records]
        return count / (ended_at - first_at), cpu.micros_per(count), webhooks

    async def _p95_ms(self, failing: bool) -> float:
        """Return the p95 latency of an endpoint next to three others, which work, or hang, refuse and do not resolve."""
        received = Received()
        receiver = Receiver(received)
        async with contextlib.AsyncExitStack() as closing:
            url = await receiver.open()
            closing.push_async_callback(receiver.close)
            merchant = await asyncio.to_thread(create_merchant, self.stack, "bench webhooks")
            # Otherwise the failed webhooks would be retried during the next measurements.
            closing.push_async_callback(asyncio.to_thread, delete_merchant, self.stack, merchant)
            neighbors = [f"{url}/{number}" for number in range(1, NEIGHBORS + 1)]
            if failing:
                neighbors = [await closing.enter_async_context(_hanging()), closing.enter_context(_refusing()), _UNRESOLVABLE]
            for endpoint in (f"{url}/0", *neighbors):
                secret = await asyncio.to_thread(create_endpoint, self.stack, merchant, endpoint)
                received.secrets[endpoint.removeprefix(url)] = decode_secret(secret)
            await self._create(merchant, received, _WARM_UP_SECONDS)
            payouts = await self._create(merchant, received, self.seconds)
        latencies = [received.arrived[payout, "payout.succeeded", "0"] - sent_at for payout, sent_at in payouts.items()]
        return percentile(latencies, 95) * 1000

    async def _create(self, merchant: Merchant, received: Received, seconds: float) -> dict[str, float]:
        """Create payouts for `seconds`, and wait for their webhooks at the measured endpoint. Return when each was sent."""
        sent, _ = await send_creates(self.stack, [merchant], _CLIENT_CONNECTIONS, self.rate, seconds, _ARRIVE_SECONDS)
        deadline = time.perf_counter() + _ARRIVE_SECONDS
        while not all((payout, "payout.succeeded", "0") in received.arrived for payout in sent.payouts):
            if time.perf_counter() > deadline:
                raise BenchError(f"Webhooks were missing at the working endpoint after {_ARRIVE_SECONDS:.0f} seconds.")
            await asyncio.sleep(0.02)
        received.check()
        return sent.payouts


def webhook_figures(rounds: Sequence[Round]) -> list[Figure]:
    """Return the figures of all rounds: `ratio` is the sandbox to the bare client, `p95_ratio` failing to working."""
    return [
        Figure("sandbox_per_second", [round_.sandbox_rate for round_ in rounds], RATE),
        Figure("client_per_second", [round_.client_rate for round_ in rounds], RATE),
        Figure("ratio", [round_.sandbox_rate / round_.client_rate for round_ in rounds], RATIO),
        Figure("p95_ms_next_to_working", [round_.working_p95_ms for round_ in rounds], MS),
        Figure("p95_ms_next_to_failing", [round_.failing_p95_ms for round_ in rounds], MS),
        Figure("p95_ratio", [round_.failing_p95_ms / round_.working_p95_ms for round_ in rounds], RATIO),
        *cpu_figures("payout", [round_.cpu_us for round_ in rounds]),
    ]


async def _post_all(url: str, webhooks: Sequence[tuple[str, bytes]]) -> None:
    """Post the webhooks with aiohttp as a short script would: no signature, no record, no check of addresses."""
    waiting = iter(webhooks)

    async def post(session: aiohttp.ClientSession) -> None:
        for webhook_id, body in waiting:
            headers = {"content-type": "application/json", ID_HEADER: webhook_id}
            async with session.post(url, data=body, headers=headers) as response:
                await response.read()
                response.raise_for_status()

    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(post(session) for _ in range(_CLIENT_CONNECTIONS)))
    except aiohttp.ClientError as error:
        raise BenchError(f"The bare client failed: {error!r}") from error


@contextlib.asynccontextmanager
async def _hanging() -> AsyncIterator[str]:
    """Yield the URL of a server that never responds."""
    # Bare protocols have no tasks, which the end of the event loop would cancel.
    transports: set[asyncio.Transport] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: ServedConnection(transports), "127.0.0.1", 0, backlog=1024)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        await close_transports(transports)


@contextlib.contextmanager
def _refusing() -> Iterator[str]:
    """Yield a URL whose port refuses connections."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening, so that no other program can use the port
        yield f"http://127.0.0.1:{unused.getsockname()[1]}/"
