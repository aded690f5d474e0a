"""`psp bench webhooks`: compare deliveries with a bare HTTP client, and measure how failing endpoints delay a working one."""

import asyncio
import contextlib
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import uvloop

from sandbox.bench.cpu import held, pids_of
from sandbox.bench.create import medians
from sandbox.bench.database import Database
from sandbox.bench.e2e import percentile
from sandbox.bench.machine import Machine, describe_machine
from sandbox.bench.pacer import Pacer
from sandbox.bench.receiver import Received, Receiver, ServedConnection, close_transports
from sandbox.bench.sink import Sink, run_sink
from sandbox.bench.stack import BenchError, Merchant, Stack, call, check_audit, create_endpoint, create_merchant
from sandbox.domain.webhook_signing import ID_HEADER, decode_secret

NEIGHBORS: Final = 3
"""Number of endpoints next to the one whose latency is measured."""
_BATCH: Final = 1000
_CLIENT_CONNECTIONS: Final = 64
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
class WebhooksResult:
    """The figures of all rounds."""

    machine: Machine
    deliveries: int
    rate: int
    rounds: Sequence[Round]

    @property
    def ratios(self) -> list[float]:
        """The sandbox's rate divided by the client's, of each round."""
        return [round_.sandbox_rate / round_.client_rate for round_ in self.rounds]

    @property
    def p95_ratios(self) -> list[float]:
        """The p95 next to failing endpoints divided by the p95 next to working ones, of each round."""
        return [round_.failing_p95_ms / round_.working_p95_ms for round_ in self.rounds]

    @property
    def cpu_us(self) -> dict[str, float]:
        """The medians of the rounds."""
        return medians([round_.cpu_us for round_ in self.rounds])


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
    progress: Callable[[str, int], None] = field(default=lambda what, done: None)

    @property
    def steps(self) -> int:
        """The total number of steps that `progress` counts."""
        return 4 * self.rounds

    def run(self) -> WebhooksResult:
        """Measure. Raises BenchError if a webhook is missing, invalid or not recorded."""
        if not pids_of(self.stack.pid, "worker"):
            raise BenchError("This bench holds the workers while it creates payouts, so they must run on this machine.")
        database = Database(self.stack.database_url)
        machine = describe_machine(database.version)
        with run_sink() as sink:
            self.progress("warming up", 0)
            self._deliver(database, sink, min(self.deliveries, _BATCH))
            rounds = [self._round(database, sink, number) for number in range(1, self.rounds + 1)]
        return WebhooksResult(machine, self.deliveries, self.rate, rounds)

    def _round(self, database: Database, sink: Sink, number: int) -> Round:
        self.progress(f"round {number}: the sandbox", 0)
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
                _create_pending(self.stack, merchant, count)
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
            closing.push_async_callback(asyncio.to_thread, _delete, self.stack, merchant)
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
        pacer = Pacer(self.stack, [merchant], _CLIENT_CONNECTIONS)
        try:
            await pacer.open()
            await pacer.run(self.rate, seconds)
            await pacer.wait_for_responses(_ARRIVE_SECONDS)
        finally:
            await pacer.close()
        if pacer.sent.failed:
            raise BenchError(f"{pacer.sent.failed} creates failed: {'; '.join(pacer.sent.reasons)}")
        deadline = time.perf_counter() + _ARRIVE_SECONDS
        while not all((payout, "payout.succeeded", "0") in received.arrived for payout in pacer.sent.payouts):
            if time.perf_counter() > deadline:
                raise BenchError(f"Webhooks were missing at the working endpoint after {_ARRIVE_SECONDS:.0f} seconds.")
            await asyncio.sleep(0.02)
        if received.refused:
            raise BenchError(f"{received.refused} webhooks were invalid: {'; '.join(received.reasons)}")
        return pacer.sent.payouts


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


def _create_pending(stack: Stack, merchant: Merchant, count: int) -> None:
    """Create payouts that stay PENDING, so each causes one webhook. Raises BenchError."""
    for start in range(0, count, _BATCH):
        payouts = [
            {
                "merchant_reference": secrets.token_hex(12),
                "amount": "1.00",
                "dest_type": "BANK",
                "bank_code": "HBL",
                "account_number": "12345678900004",
                "account_title": "AYESHA KHAN",
            }
            for _ in range(min(_BATCH, count - start))
        ]
        headers = {"X-API-KEY": merchant.api_key, "X-IDEMPOTENCY-KEY": secrets.token_hex(8)}
        results = call(stack, "POST", "/api/v1/payouts/batch", headers, {"payouts": payouts})["results"]
        if any(result["status"] != 201 for result in results):
            raise BenchError(f"Not all payouts were created: {json.dumps(results)[:500]}")


def _delete(stack: Stack, merchant: Merchant) -> None:
    call(stack, "DELETE", f"/sandbox/v1/merchants/{merchant.merchant_id}", {"X-ADMIN-KEY": stack.admin_key}, None)


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
