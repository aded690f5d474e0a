"""Keep-alive connections to the API, for the load generators.

They use the bare protocol to save CPU time, because the load generator shares the cores with the sandbox it measures.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import httptools

from sandbox.cli.benches.receiver import close_transports
from sandbox.cli.benches.stack import BenchError

OnResponse = Callable[[int, bytes], None]
"""Called with the status and body of a response, or with 0 and the reason if there is none."""


class Connections:
    """Connections to one API, each with one request at a time. Calls `on_free` when a connection can be reused.

    Raises BenchError if the API's URL is not plain HTTP.
    """

    def __init__(self, api_url: str, on_free: Callable[[], None] = lambda: None) -> None:
        address = urlsplit(api_url)
        if address.scheme != "http" or address.hostname is None:
            raise BenchError(f"The benchmarks need plain HTTP, but the sandbox's URL is {api_url}.")
        self.host = address.netloc
        self.free: deque[Connection] = deque()
        self.on_free = on_free
        self.transports: set[asyncio.Transport] = set()
        self.closing = False
        self._host, self._port = address.hostname, address.port or 80

    async def open(self) -> "Connection":
        """Return a new connection that is not in `free`. Raises OSError."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Connection(self), self._host, self._port)
        return connection

    async def close(self) -> None:
        """Close all connections. The callbacks of unfinished requests are not called."""
        self.closing = True
        self.free.clear()
        await close_transports(self.transports)


class Connection(asyncio.Protocol):
    """One connection to the API, with one request at a time."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._on_response: OnResponse | None = None
        self._body = b""

    def send(self, request: bytes, on_response: OnResponse) -> None:
        """Send a request. The previous one must have ended."""
        self._on_response = on_response
        self._body = b""
        if self._transport is None or self._transport.is_closing():
            self._end(0, b"the connection was closed")
        else:
            self._transport.write(request)

    def exchange(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        """Send a request, and return its future response: what `on_response` gets."""
        arrived: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

        def on_response(status: int, body: bytes) -> None:
            if not arrived.done():
                arrived.set_result((status, body))

        self.send(request, on_response)
        return arrived

    def _end(self, status: int, body: bytes) -> None:
        on_response, self._on_response = self._on_response, None
        if on_response is not None:
            on_response(status, body)

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's class does not inherit from it
        self._connections.transports.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._connections.free:
            self._connections.free.remove(self)
        if self._transport is not None:
            self._connections.transports.discard(self._transport)
        if not self._connections.closing:
            self._end(0, f"the connection was lost: {exc}".encode())

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
        # Do not reuse a connection that the server is about to close.
        if self._parser.should_keep_alive():
            self._connections.free.append(self)
        elif self._transport is not None:
            self._transport.close()
        self._end(self._parser.get_status_code(), self._body)
        self._connections.on_free()
