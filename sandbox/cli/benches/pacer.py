"""Send creates at a steady rate, without waiting for responses. A client that waits for each response would hide stalls."""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from sandbox.cli.benches.connections import Connections
from sandbox.cli.benches.stack import BenchError, Merchant, Stack

_TICK = 0.001
_REASONS_KEPT = 5


class _Created(msgspec.Struct):
    id: str


_decode = msgspec.json.Decoder(_Created).decode


@dataclass(slots=True)
class Sent:
    """The creates that were sent, and their responses. Times are from `time.perf_counter`."""

    requests: int = 0
    responses: int = 0
    payouts: dict[str, float] = field(default_factory=dict)
    """When each payout's request was sent, by the payout's id."""
    response_seconds: list[float] = field(default_factory=list)
    max_lag_seconds: float = 0.0
    """The longest delay of a request behind its schedule, in seconds."""
    failed: int = 0
    reasons: list[str] = field(default_factory=list)
    """The reasons of the first few failures."""

    def fail(self, reason: str) -> None:
        """Count a failed create."""
        self.failed += 1
        if len(self.reasons) < _REASONS_KEPT:
            self.reasons.append(reason)

    def check(self) -> None:
        """Raise BenchError if a create failed."""
        if self.failed:
            raise BenchError(f"{self.failed} creates failed: {'; '.join(self.reasons)}")


class Pacer:
    """Sends creates for merchants in rotation, over keep-alive connections. Calls `on_created` with each payout's id."""

    def __init__(
        self,
        stack: Stack,
        merchants: Sequence[Merchant],
        connections: int,
        on_created: Callable[[str], None] = lambda payout_id: None,
    ) -> None:
        self.sent = Sent()
        self.on_created = on_created
        self._connections = Connections(stack.api_url, self._send_waiting)
        self._count = connections
        self._waiting: deque[tuple[float, int]] = deque()
        opening = b'{"merchant_reference":"'
        rest = (
            b'","amount":"1.00","dest_type":"BANK","bank_code":"HBL","account_number":"12345678900001",'
            b'"account_title":"AYESHA KHAN"}'
        )
        run = secrets.token_hex(4)
        middle = b"\r\n\r\n" + opening
        self._requests = []
        for merchant in merchants:
            head = (
                f"POST /api/v1/payouts HTTP/1.1\r\nHost: {self._connections.host}\r\nContent-Type: application/json\r\n"
                f"X-API-KEY: {merchant.api_key}\r\nContent-Length: {len(opening) + 20 + len(rest)}\r\n"
                "X-IDEMPOTENCY-KEY: bench-payout-key"
            ).encode()
            self._requests.append(head + f"{run}-%011d".encode() + middle + f"{run}-%011d".encode() + rest)

    async def open(self) -> None:
        """Open the connections. Raises OSError."""
        for _ in range(self._count):
            self._connections.free.append(await self._connections.open())

    async def run(self, rate: int, seconds: float) -> float:
        """Send `rate` creates per second for `seconds`, each at its scheduled time. Return the time at the end."""
        started = time.perf_counter()
        count = round(rate * seconds)
        due = 0
        while due < count:
            now = time.perf_counter()
            while due < count and started + due / rate <= now:
                self._waiting.append((started + due / rate, due))
                due += 1
            self._send_waiting()
            await asyncio.sleep(_TICK)
        return time.perf_counter()

    async def wait_for_responses(self, seconds: float) -> None:
        """Wait up to `seconds` for all responses. Count requests without one as failed."""
        deadline = time.perf_counter() + seconds
        while self._waiting or self.sent.responses + self.sent.failed < self.sent.requests:
            if time.perf_counter() > deadline:
                missing = len(self._waiting) + self.sent.requests - self.sent.responses - self.sent.failed
                self.sent.failed += missing
                self.sent.reasons.append(f"{missing} had no response after {seconds:.0f} seconds")
                return
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    def _send_waiting(self) -> None:
        """Send the due requests for which there are free connections."""
        free = self._connections.free
        while self._waiting and free:
            at, number = self._waiting.popleft()
            now = time.perf_counter()
            self.sent.max_lag_seconds = max(self.sent.max_lag_seconds, now - at)
            self.sent.requests += 1
            request = self._requests[number % len(self._requests)]
            free.popleft().send(request % (number, number), partial(self._on_response, now))

    def _on_response(self, sent_at: float, status: int, body: bytes) -> None:
        if status != 201:
            self.sent.fail(f"{status or 'no response'}: {body[:300].decode('utf-8', 'replace')}")
            return
        self.sent.responses += 1
        self.sent.response_seconds.append(time.perf_counter() - sent_at)
        payout_id = _decode(body).id
        self.sent.payouts[payout_id] = sent_at
        self.on_created(payout_id)


async def send_creates(
    stack: Stack, merchants: Sequence[Merchant], connections: int, rate: int, seconds: float, wait: float
) -> tuple[Sent, float]:
    """Send creates over new connections, and wait up to `wait` seconds for responses. Also returns when the last was sent.

    Raises BenchError if a create failed.
    """
    pacer = Pacer(stack, merchants, connections)
    try:
        await pacer.open()
        ended = await pacer.run(rate, seconds)
        await pacer.wait_for_responses(wait)
    finally:
        await pacer.close()
    pacer.sent.check()
    return pacer.sent, ended
