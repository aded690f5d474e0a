"""Connections to the API that are kept alive, for the load generators.

Written on the bare protocol: who makes the load shares its cores with what is measured.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import httptools

from sandbox.bench.receiver import close_transports
from sandbox.bench.stack import BenchError

Ended = Callable[[int, bytes], None]
"""Told of a request's answer, its status and its body; or that there is none: 0, and why not."""


class Connections:
    """Connections to one API, each with one request under way at a time. `freed` is told when one can be used again.

    Raises BenchError when the API is not at a plain HTTP address.
    """

    def __init__(self, api_url: str, freed: Callable[[], None] = lambda: None) -> None:
        address = urlsplit(api_url)
        if address.scheme != "http" or address.hostname is None:
            raise BenchError(f"The load goes over plain HTTP, and the sandbox is at {api_url}.")
        self.host = address.netloc
        self.free: deque[Connection] = deque()
        self.freed = freed
        self.transports: set[asyncio.Transport] = set()
        self.closing = False
        self._host, self._port = address.hostname, address.port or 80

    async def open(self) -> "Connection":
        """A new connection, not among the free ones. Raises OSError."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Connection(self), self._host, self._port)
        return connection

    async def close(self) -> None:
        """Close them all; nobody is told of what was under way."""
        self.closing = True
        self.free.clear()
        await close_transports(self.transports)


class Connection(asyncio.Protocol):
    """One connection to the API, with one request under way at a time."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._ended: Ended | None = None
        self._body = b""

    def send(self, request: bytes, ended: Ended) -> None:
        """Send a request; no other may be under way."""
        self._ended = ended
        self._body = b""
        if self._transport is None or self._transport.is_closing():
            self._end(0, b"the connection was closed")
        else:
            self._transport.write(request)

    def _end(self, status: int, body: bytes) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(status, body)

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass of it
        self._connections.transports.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._connections.free:
            self._connections.free.remove(self)
        if self._transport is not None:
            self._connections.transports.discard(self._transport)
        if not self._connections.closing:
            self._end(0, f"the connection broke off: {exc}".encode())

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.close()

    # httptools calls these.

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        # One that the server is about to close must not be used again.
        if self._parser.should_keep_alive():
            self._connections.free.append(self)
        elif self._transport is not None:
            self._transport.close()
        self._end(self._parser.get_status_code(), self._body)
        self._connections.freed()
