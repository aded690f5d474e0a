"""Servers on loopback that send raw bytes and so can misbehave, and a webhook sender to test against them."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network

from aiohttp.abc import AbstractResolver

from sandbox.webhooks.outbound.sender import MAX_IN_FLIGHT, SendResult, WebhookSender
from tests.harness.stream_server import accepting

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class Peer:
    """A local server, as the test sees it.

    `requests` are the received requests. `request_arrived` and `disconnected` are set by handlers, and `test_ended` is set when
    the test has finished.
    """

    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    request_arrived: asyncio.Event = field(default_factory=asyncio.Event)
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    test_ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def wait_for_disconnect(self, reader: asyncio.StreamReader) -> None:
        """Wait until the client has closed the connection."""
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
        self.disconnected.set()


Handler = Callable[[Peer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> bytes | None:
    """Read a request and return its raw bytes, or None if the client disconnects first."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[Peer]:
    """Run the handler for each connection to a new server, and yield the server. At the end, wait for the handlers."""
    peer = Peer()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.connections += 1
        await handler(peer, reader, writer)

    async with accepting(connected, host, tls, grace_seconds=10) as peer.port:
        try:
            yield peer
        finally:
            peer.test_ended.set()


def responding_with(response: bytes, then_close: bool = False) -> Handler:
    """Return a handler that sends these bytes for every request and keeps the connection open, unless `then_close`."""

    async def handler(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader)) is not None:
            peer.requests.append(request)
            writer.write(response)
            await writer.drain()
            if then_close:
                return
        peer.disconnected.set()

    return handler


async def silent(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read a request, never respond, and wait until the client disconnects."""
    request = await read_request(reader)
    if request is not None:
        peer.requests.append(request)
        peer.request_arrived.set()
    await peer.wait_for_disconnect(reader)  # the client may also disconnect before it has sent its request


@asynccontextmanager
async def sending(
    seconds: float = 15.0,
    limit: int = MAX_IN_FLIGHT,
    ssl_context: ssl.SSLContext | None = None,
    resolver: AbstractResolver | None = None,
) -> AsyncIterator[WebhookSender]:
    """Yield a webhook sender that may call loopback, with a timeout in seconds."""
    sender = WebhookSender(LOOPBACK, timeout=seconds, limit=limit, ssl_context=ssl_context, resolver=resolver)
    try:
        yield sender
    finally:
        await sender.close()


async def send_once(handler: Handler, seconds: float = 15.0) -> SendResult:
    """Send one webhook to a server with this handler, and return the result."""
    async with serving(handler) as peer, sending(seconds) as sender:
        return await sender.send(peer.url, b"{}", {"webhook-id": "evt-1"})
