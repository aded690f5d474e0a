"""A webhook receiver: takes every delivery, checks its signature, and remembers when it came.

Written on the bare protocol: it shares its cores with what it measures.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

import httptools
import msgspec

from sandbox.webhooks.signing import ID_HEADER, verify

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_REASONS_KEPT = 5


class _Data(msgspec.Struct):
    id: str


class _Event(msgspec.Struct):
    type: str
    data: _Data


_decode = msgspec.json.Decoder(_Event).decode


@dataclass(slots=True)
class Received:
    """What has arrived. Times are of `time.perf_counter`."""

    secret: bytes = b""
    arrived: dict[tuple[str, str], float] = field(default_factory=dict)
    """(payout's id, event's type) → when it came for the first time."""
    ids: set[str] = field(default_factory=set)
    """The `webhook-id`s; an event that comes again has the same one."""
    duplicates: int = 0
    refused: int = 0
    reasons: list[str] = field(default_factory=list)
    """Why the first few were refused."""

    def take(self, headers: dict[str, str], body: bytes) -> None:
        """Check one delivery and note it. One that is not what it should be is counted, never raised."""
        now = time.perf_counter()
        fault = verify([self.secret], headers, body, int(time.time()))
        if fault is None:
            try:
                event = _decode(body)
            except msgspec.MsgspecError as error:
                fault = f"The body is not an event of a payout: {error}"
        if fault is not None:
            self.refused += 1
            if len(self.reasons) < _REASONS_KEPT:
                self.reasons.append(fault)
            return
        message_id = headers[ID_HEADER]
        if message_id in self.ids:
            self.duplicates += 1
            return
        self.ids.add(message_id)
        self.arrived.setdefault((event.data.id, event.type), now)


class _Connection(asyncio.Protocol):
    """One connection of the sender: answers each request with an empty 200, and stays open."""

    def __init__(self, received: Received) -> None:
        self._received = received
        self._parser = httptools.HttpRequestParser(self)
        self._headers: dict[str, str] = {}
        self._body = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass of it

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._received.refused += 1
            if self._transport is not None:
                self._transport.close()

    # httptools calls these.

    def on_message_begin(self) -> None:
        self._headers = {}
        self._body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._transport is not None:
            self._transport.write(_OK)
        self._received.take(self._headers, self._body)


async def open_receiver(received: Received) -> tuple[asyncio.Server, str]:
    """Listen on a free port of the loopback address; gives the server and its URL."""
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(received), "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    return server, f"http://127.0.0.1:{port}/webhooks"
