"""Sends creates at a steady rate, whatever the answers do: who waits for an answer before it asks again hides a stall."""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from sandbox.bench.connections import Connections
from sandbox.bench.stack import Merchant, Stack

_TICK = 0.001
_REASONS_KEPT = 5


class _Created(msgspec.Struct):
    id: str


_decode = msgspec.json.Decoder(_Created).decode


@dataclass(slots=True)
class Sent:
    """What was sent and answered. Times are of `time.perf_counter`, `payouts` has each one's moment of sending."""

    requests: int = 0
    answers: int = 0
    payouts: dict[str, float] = field(default_factory=dict)
    answer_seconds: list[float] = field(default_factory=list)
    latest: float = 0.0
    """By how many seconds the request was late that was sent latest after its time."""
    failed: int = 0
    reasons: list[str] = field(default_factory=list)
    """What the first few were answered that did not become a payout."""

    def fail(self, reason: str) -> None:
        """Count a create that did not become a payout."""
        self.failed += 1
        if len(self.reasons) < _REASONS_KEPT:
            self.reasons.append(reason)


class Pacer:
    """Paces creates of merchants in turn over connections that are kept alive; `created` is told of each payout's id."""

    def __init__(
        self,
        stack: Stack,
        merchants: Sequence[Merchant],
        connections: int,
        created: Callable[[str], None] = lambda payout_id: None,
    ) -> None:
        self.sent = Sent()
        self.created = created
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
        """Connect."""
        for _ in range(self._count):
            self._connections.free.append(await self._connections.open())

    async def run(self, rate: int, seconds: float) -> float:
        """Send `rate` creates a second for so long, each at its time; gives when the last one was to be sent."""
        began = time.perf_counter()
        count = round(rate * seconds)
        due = 0
        while due < count:
            now = time.perf_counter()
            while due < count and began + due / rate <= now:
                self._waiting.append((began + due / rate, due))
                due += 1
            self._send_waiting()
            await asyncio.sleep(_TICK)
        return time.perf_counter()

    async def answered(self, seconds: float) -> None:
        """Wait until all that was sent is answered, but so long at most; what is not then has failed."""
        deadline = time.perf_counter() + seconds
        while self._waiting or self.sent.answers + self.sent.failed < self.sent.requests:
            if time.perf_counter() > deadline:
                missing = len(self._waiting) + self.sent.requests - self.sent.answers - self.sent.failed
                self.sent.failed += missing
                self.sent.reasons.append(f"{missing} had no answer after {seconds:.0f} seconds")
                return
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    def _send_waiting(self) -> None:
        """Send what is due, as far as there are connections that are free."""
        free = self._connections.free
        while self._waiting and free:
            at, number = self._waiting.popleft()
            now = time.perf_counter()
            self.sent.latest = max(self.sent.latest, now - at)
            self.sent.requests += 1
            request = self._requests[number % len(self._requests)]
            free.popleft().send(request % (number, number), partial(self._answered, now))

    def _answered(self, sent_at: float, status: int, body: bytes) -> None:
        if status != 201:
            self.sent.fail(f"{status or 'no answer'}: {body[:300].decode('utf-8', 'replace')}")
            return
        self.sent.answers += 1
        self.sent.answer_seconds.append(time.perf_counter() - sent_at)
        payout_id = _decode(body).id
        self.sent.payouts[payout_id] = sent_at
        self.created(payout_id)
