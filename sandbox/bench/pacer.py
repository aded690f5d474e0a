"""Sends creates at a steady rate, whatever the answers do: who waits for an answer before it asks again hides a stall.

Written on the bare protocol: it shares its cores with what it measures.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec

from sandbox.bench.receiver import close_transports
from sandbox.bench.stack import BenchError, Merchant, Stack

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
    """Paces creates of one merchant over connections that are kept alive; `created` is told of each payout's id."""

    def __init__(
        self, stack: Stack, merchant: Merchant, connections: int, created: Callable[[str], None] = lambda payout_id: None
    ) -> None:
        address = urlsplit(stack.api_url)
        if address.scheme != "http" or address.hostname is None:
            raise BenchError(f"The load goes over plain HTTP, and the sandbox is at {stack.api_url}.")
        self.sent = Sent()
        self.created = created
        self.free: deque[_Connection] = deque()
        self.transports: set[asyncio.Transport] = set()
        self.closing = False
        self._host, self._port = address.hostname, address.port or 80
        self._connections = connections
        self._waiting: deque[tuple[float, int]] = deque()
        opening = b'{"merchant_reference":"'
        rest = (
            b'","amount":"1.00","dest_type":"BANK","bank_code":"HBL","account_number":"12345678900001",'
            b'"account_title":"AYESHA KHAN"}'
        )
        run = secrets.token_hex(4)
        head = (
            f"POST /api/v1/payouts HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
            f"X-API-KEY: {merchant.api_key}\r\nContent-Length: {len(opening) + 20 + len(rest)}\r\n"
            "X-IDEMPOTENCY-KEY: bench-payout-key"
        ).encode()
        middle = b"\r\n\r\n" + opening
        self._request = head + f"{run}-%011d".encode() + middle + f"{run}-%011d".encode() + rest

    async def open(self) -> None:
        """Connect."""
        loop = asyncio.get_running_loop()
        for _ in range(self._connections):
            await loop.create_connection(lambda: _Connection(self), self._host, self._port)

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
            self.send_waiting()
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

    def send_waiting(self) -> None:
        """Send what is due, as far as there are connections that are free."""
        while self._waiting and self.free:
            at, number = self._waiting.popleft()
            now = time.perf_counter()
            self.sent.latest = max(self.sent.latest, now - at)
            self.sent.requests += 1
            self.free.popleft().send(self._request % (number, number), now)

    async def close(self) -> None:
        """Close the connections."""
        self.closing = True
        self.free.clear()
        await close_transports(self.transports)


class _Connection(asyncio.Protocol):
    """One connection to the API, with one request under way at a time."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._sent_at: float | None = None
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass of it
        self._pacer.transports.add(self._transport)
        self._pacer.free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._pacer.transports.discard(self._transport)
        if self in self._pacer.free:
            self._pacer.free.remove(self)
        if self._sent_at is not None and not self._pacer.closing:
            self._sent_at = None
            self._pacer.sent.fail(f"the connection broke off: {exc}")

    def send(self, request: bytes, now: float) -> None:
        assert self._transport is not None
        self._sent_at = now
        self._body = b""
        self._transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    # httptools calls these.

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        sent, sent_at = self._pacer.sent, self._sent_at
        assert sent_at is not None
        self._sent_at = None
        status = self._parser.get_status_code()
        if status == 201:
            sent.answers += 1
            sent.answer_seconds.append(time.perf_counter() - sent_at)
            payout_id = _decode(self._body).id
            sent.payouts[payout_id] = sent_at
            self._pacer.created(payout_id)
        else:
            sent.fail(f"{status} {self._body[:300].decode('utf-8', 'replace')}")
        # One that the server is about to close must not be used again.
        if self._parser.should_keep_alive():
            self._pacer.free.append(self)
            self._pacer.send_waiting()
        else:
            self.close()
