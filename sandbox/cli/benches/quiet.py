"""The process of the quiet merchant of `psp bench neighbors`. It is alone in its process, so nothing else delays its clock."""

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import uvloop

from sandbox.cli.benches.child import Pipe, run_child
from sandbox.cli.benches.connections import Connection, Connections
from sandbox.cli.benches.receiver import Received, Receiver
from sandbox.cli.benches.stack import Merchant, Stack
from sandbox.webhooks.signing.standard_webhooks import decode_secret

_PER_SECOND: Final = 20
_OPEN_SECONDS: Final = 60.0
_TIMEOUT: Final = 30.0
"""Seconds to wait for a response, and after the last create for the webhooks."""
EVENT: Final = "payout.created"
"""The event whose webhook is waited for."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A measurement: creates of a merchant, one after another. With a secret, also the webhooks of its endpoint."""

    merchant: Merchant
    seconds: float
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class Latencies:
    """The latencies of the quiet merchant in a phase."""

    seconds: Sequence[float]
    """The latency of each create; with webhooks, the time from sending each create to the arrival of its webhook."""
    statuses: Mapping[int, int]
    """The number of responses by status; 0 stands for no response."""
    missing: int = 0
    """Webhooks that did not arrive in time. Their time is how long they were waited for."""


class Quiet:
    """The quiet merchant's process. `url` is its webhook receiver's."""

    def __init__(self, pipe: Pipe, url: str) -> None:
        self.url = url
        self._pipe = pipe

    def measure(self, phase: Phase) -> Latencies:
        """Measure a phase. Raises BenchError."""
        self._pipe.send(phase)
        latencies: Latencies = self._pipe.receive(phase.seconds + 4 * _TIMEOUT)
        return latencies


@contextlib.contextmanager
def open_quiet(stack: Stack) -> Iterator[Quiet]:
    """Run the quiet merchant's process. Raises BenchError."""
    with run_child(_main, stack) as pipe:
        yield Quiet(pipe, pipe.receive(_OPEN_SECONDS))


def _main(pipe: Pipe, stack: Stack) -> None:
    uvloop.run(_serve(pipe, stack))


async def _serve(pipe: Pipe, stack: Stack) -> None:
    received = Received()
    receiver = Receiver(received)
    pipe.send(await receiver.open())
    while True:
        phase: Phase = await asyncio.to_thread(pipe.receive)
        # Connections of earlier phases are used again, and record here as well.
        received.secrets = {"/0": decode_secret(phase.secret)} if phase.secret is not None else {}
        pipe.send(await _Client(stack, phase, received).run())


class _Created(msgspec.Struct):
    id: str


class _Client:
    """Sends one create after another over one connection."""

    def __init__(self, stack: Stack, phase: Phase, received: Received) -> None:
        self._connections = Connections(stack.api_url)
        self._connection: Connection | None = None
        self._phase = phase
        self._received = received
        self._run = secrets.token_hex(4)
        self._number = 0

    async def run(self) -> Latencies:
        await self._create()  # opens the connection
        statuses: Counter[int] = Counter()
        latencies = []
        sent_at: dict[str, float] = {}
        ended_at = time.perf_counter() + self._phase.seconds
        while (started := time.perf_counter()) < ended_at:
            status, body = await self._create()
            latencies.append(time.perf_counter() - started)
            statuses[status] += 1
            if status == 201:
                sent_at[msgspec.json.decode(body, type=_Created).id] = started
            await asyncio.sleep(max(0.0, started + 1 / _PER_SECOND - time.perf_counter()))
        try:
            if self._phase.secret is None:
                return Latencies(latencies, dict(statuses))
            delays, missing = await self._delays(sent_at)
            return Latencies(delays, dict(statuses), missing)
        finally:
            await self._connections.close()

    async def _create(self) -> tuple[int, bytes]:
        """Return the status and body of the response; the status is 0 if there is none."""
        try:
            connection = self._connection = self._connection or await self._connections.open()
        except OSError as error:
            return 0, str(error).encode()
        arrived = connection.exchange(self._next_request())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(arrived), _TIMEOUT)
        if connection in self._connections.free:
            self._connections.free.remove(connection)
        else:
            self._connection = None  # it was closed, or its response may still come
        return arrived.result() if arrived.done() else (0, b"no response in time")

    def _next_request(self) -> bytes:
        self._number += 1
        unique = f"{self._run}-{self._number}"
        body = (
            f'{{"merchant_reference":"{unique}","amount":"1.00","dest_type":"BANK","bank_code":"HBL",'
            '"account_number":"12345678900001","account_title":"AYESHA KHAN"}'
        )
        return (
            f"POST /api/v1/payouts HTTP/1.1\r\nHost: {self._connections.host}\r\nContent-Type: application/json\r\n"
            f"X-API-KEY: {self._phase.merchant.api_key}\r\nX-IDEMPOTENCY-KEY: {unique}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    async def _delays(self, sent_at: Mapping[str, float]) -> tuple[list[float], int]:
        """Return the delay of each payout's webhook, and how many are missing."""
        arrived = self._received.arrived
        deadline = time.perf_counter() + _TIMEOUT
        while any((payout, EVENT, "0") not in arrived for payout in sent_at):
            if time.perf_counter() > deadline:
                break
            await asyncio.sleep(0.02)
        self._received.check()
        now = time.perf_counter()
        missing = sum((payout, EVENT, "0") not in arrived for payout in sent_at)
        return [arrived.get((payout, EVENT, "0"), now) - at for payout, at in sent_at.items()], missing
