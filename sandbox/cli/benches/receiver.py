"""A webhook receiver that accepts every delivery, checks its signature, and records when it arrived.

It uses the bare protocol to save CPU time, because it shares the cores with the sandbox it measures.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

import httptools
import msgspec

from sandbox.cli.benches.stack import BenchError
from sandbox.webhooks.signing.standard_webhooks import ID_HEADER, verify

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_REASONS_KEPT = 5
_CLOSE_SECONDS = 2.0


class _Data(msgspec.Struct):
    id: str


class _Event(msgspec.Struct):
    type: str
    data: _Data


_decode = msgspec.json.Decoder(_Event).decode


@dataclass(slots=True)
class Received:
    """The webhooks that arrived. Times are from `time.perf_counter`."""

    secrets: dict[str, bytes] = field(default_factory=dict)
    """The secret of each endpoint, by its path."""
    arrived: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """When each event first arrived, by the payout's id, the event's type and the last segment of the endpoint's path."""
    ids: set[tuple[str, str]] = field(default_factory=set)
    """Path and `webhook-id` of each webhook. A duplicate has the same ones."""
    duplicates: int = 0
    refused: int = 0
    reasons: list[str] = field(default_factory=list)
    """The reasons of the first few refusals."""

    def record(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Check and record one delivery. Never raises; an invalid delivery is counted as refused."""
        now = time.perf_counter()
        reason = verify([self.secrets.get(path, b"")], headers, body, int(time.time()))
        if reason is None:
            try:
                event = _decode(body)
            except msgspec.MsgspecError as error:
                reason = f"The body is not an event of a payout: {error}"
        if reason is not None:
            self.refuse(reason)
            return
        message_id = path, headers[ID_HEADER]
        if message_id in self.ids:
            self.duplicates += 1
            return
        self.ids.add(message_id)
        self.arrived.setdefault((event.data.id, event.type, path.rpartition("/")[2]), now)

    def check(self) -> None:
        """Raise BenchError if a webhook was invalid."""
        if self.refused:
            raise BenchError(f"{self.refused} webhooks were invalid: {'; '.join(self.reasons)}")

    def refuse(self, reason: str) -> None:
        """Count an invalid delivery."""
        self.refused += 1
        if len(self.reasons) < _REASONS_KEPT:
            self.reasons.append(reason)


class Receiver:
    """A server on a free loopback port that listens between `open` and `close`."""

    def __init__(self, received: Received) -> None:
        self.received = received
        self.transports: set[asyncio.Transport] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> str:
        """Start listening, and return the base URL. Append an endpoint's path to it."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1024)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Stop listening, and close all connections."""
        if self._server is not None:
            self._server.close()
        await close_transports(self.transports)


async def close_transports(transports: set[asyncio.Transport]) -> None:
    """Close all transports, and wait until each has removed itself from the set. Abort those that hang.

    A server must be closed before its transports.
    """
    deadline = time.perf_counter() + _CLOSE_SECONDS
    await asyncio.sleep(0)  # uvloop adds a connection that it has just accepted in its next turn
    while transports and time.perf_counter() < deadline:
        for transport in list(transports):
            transport.close()
        await asyncio.sleep(0.005)
    for transport in list(transports):
        transport.abort()
    await asyncio.sleep(0)


class ServedConnection(asyncio.Protocol):
    """A connection to a server. It is in the set of open transports while it is open, and ignores what it receives."""

    def __init__(self, transports: set[asyncio.Transport]) -> None:
        self._transports = transports
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's class does not inherit from it
        self._transports.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._transports.discard(self._transport)


class _Connection(ServedConnection):
    """One connection from the sender. It responds to each request with an empty 200, and stays open."""

    def __init__(self, receiver: Receiver) -> None:
        super().__init__(receiver.transports)
        self._received = receiver.received
        self._parser = httptools.HttpRequestParser(self)
        self._headers: dict[str, str] = {}
        self._body = b""
        self._path = b""

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._received.refuse("The request is not valid HTTP.")
            if self._transport is not None:
                self._transport.close()

    # httptools calls these.

    def on_message_begin(self) -> None:
        self._headers = {}
        self._body = b""
        self._path = b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._transport is not None:
            self._transport.write(_OK)
        self._received.record(self._path.decode("latin-1"), self._headers, self._body)
