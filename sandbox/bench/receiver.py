"""A webhook receiver: takes every delivery, checks its signature, and remembers when it came.

Written on the bare protocol: it shares its cores with what it measures.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

import httptools
import msgspec

from sandbox.domain.webhook_signing import ID_HEADER, verify

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
    """What has arrived. Times are of `time.perf_counter`."""

    secrets: dict[str, bytes] = field(default_factory=dict)
    """The secret of the endpoint at each path."""
    arrived: dict[tuple[str, str], float] = field(default_factory=dict)
    """(payout's id, event's type) → when it came for the first time."""
    ids: set[tuple[str, str]] = field(default_factory=set)
    """Path and `webhook-id` of each; an event that comes again has the same ones."""
    duplicates: int = 0
    refused: int = 0
    reasons: list[str] = field(default_factory=list)
    """Why the first few were refused."""

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Check one delivery and note it. One that is not what it should be is counted, never raised."""
        now = time.perf_counter()
        fault = verify([self.secrets.get(path, b"")], headers, body, int(time.time()))
        if fault is None:
            try:
                event = _decode(body)
            except msgspec.MsgspecError as error:
                fault = f"The body is not an event of a payout: {error}"
        if fault is not None:
            self.refuse(fault)
            return
        message_id = path, headers[ID_HEADER]
        if message_id in self.ids:
            self.duplicates += 1
            return
        self.ids.add(message_id)
        self.arrived.setdefault((event.data.id, event.type), now)

    def refuse(self, reason: str) -> None:
        """Count a delivery that was not what it should be."""
        self.refused += 1
        if len(self.reasons) < _REASONS_KEPT:
            self.reasons.append(reason)


class Receiver:
    """Listens on a free port of the loopback address, between `open` and `close`."""

    def __init__(self, received: Received) -> None:
        self.received = received
        self.transports: set[asyncio.Transport] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> str:
        """Begin to listen; gives the URL, to which the path of an endpoint is added."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1024)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Listen no more, and close what is connected."""
        if self._server is not None:
            self._server.close()
        await close_transports(self.transports)


async def close_transports(transports: set[asyncio.Transport]) -> None:
    """Close them and wait until they are, when each leaves the set; those that hang are cut."""
    for transport in list(transports):
        transport.close()
    deadline = time.perf_counter() + _CLOSE_SECONDS
    while transports:
        if time.perf_counter() > deadline:
            break
        await asyncio.sleep(0.005)
    for transport in list(transports):
        transport.abort()
    await asyncio.sleep(0)


class _Connection(asyncio.Protocol):
    """One connection of the sender: answers each request with an empty 200, and stays open."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._parser = httptools.HttpRequestParser(self)
        self._headers: dict[str, str] = {}
        self._body = b""
        self._path = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass of it
        self._receiver.transports.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._receiver.transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._receiver.received.refuse("It was not HTTP.")
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
        self._receiver.received.take(self._path.decode("latin-1"), self._headers, self._body)
