"""Post webhooks over one shared connection pool. Every wait and size is bounded; errors are returned, never raised.

A response is untrusted input: it is truncated and cleaned, and its redirects are not followed. The limits are part of the API:
15 s, no redirects, 20,000 bytes of response.

Uses aiohttp's connector and response parser without its session. The session costs more CPU time per request than these two
together, for features that webhooks do not need: redirects, cookies, proxies, decompression, streamed request bodies.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache, partial
from math import ceil
from time import perf_counter
from typing import Final, NamedTuple, Protocol

import aiohttp
import msgspec
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from yarl import URL

from sandbox.domain.enumerations import ErrorClass
from sandbox.domain.redaction import HIDDEN
from sandbox.webhooks.outbound.address_guard import Network, refusal_reason
from sandbox.webhooks.outbound.resolver import NameResolver
from sandbox.webhooks.outbound.send_errors import describe
from sandbox.webhooks.outbound.sockets import open_socket
from sandbox.webhooks.outbound.timings import NO_TIMINGS, Stopwatch, Timings

TIMEOUT = 15.0
"""Seconds for the whole attempt: lookup, connection, request and response."""
MAX_IN_FLIGHT = 2500
"""Maximum number of requests in flight, more than `capacity` allows."""
BODY_LIMIT = 20_000
HEADERS_LIMIT = 50
HEADER_NAME_LIMIT = 200
HEADER_VALUE_LIMIT = 1000

# Node.js and uvicorn close idle connections after 5 s. A request that reuses a connection at that moment is lost.
_KEEP_ALIVE = 4.0
# If the server had closed the connection already, we notice within a round trip. If the error comes later than this, the
# server received the request and dropped it.
_STALE_WITHIN = 1.0
_NO_TIMEOUT: Final = aiohttp.ClientTimeout()
"""For the connector. One timeout covers the whole attempt."""
_SWITCHING_PROTOCOLS: Final = 101

DEFAULT_HEADERS: Final = {
    "content-type": "application/json",
    "user-agent": "PSP-Sandbox-Webhooks/1",
    "accept": "*/*",
    # Response bodies are stored as received. Compressed, they would be unreadable; decompressing could be a zip bomb.
    "accept-encoding": "identity",
}
"""Headers of every webhook, besides its own."""


class SendResult(msgspec.Struct, frozen=True):
    """The result of one attempt. It succeeded only if `error_class` is None, so if `error` is None and `status` is 2xx.

    If there is a `status`, the server responded, even if `error` says that the response broke off or was a redirect. No string
    contains NUL or lone surrogates, which PostgreSQL refuses.
    """

    status: int | None
    response_headers: dict[str, str]
    """At most HEADERS_LIMIT headers: names in lower case, values of at most HEADER_VALUE_LIMIT characters."""
    response_body: str
    """At most BODY_LIMIT bytes of UTF-8. The rest is not read."""
    error: str | None
    duration_ms: int
    timings: Timings = NO_TIMINGS
    error_class: ErrorClass | None = None


class Sender(Protocol):
    """Posts webhooks."""

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> SendResult:
        """Attempt to post `body` once and return the result. Raises nothing but CancelledError."""


class _Target(NamedTuple):
    request: aiohttp.ClientRequest
    """Tells the connector where to connect. Never sent itself."""
    head: str
    """The request line and the headers that all requests to the URL have in common."""
    looks_up: bool
    """Whether a new connection needs a lookup: the host is a name."""
    is_tls: bool


class _Attempt(Stopwatch):
    """The state of the connection for one `send`.

    The connector's factories of sockets and protocols do not know which `send` they serve, so they find it in `_current`.
    """

    __slots__ = ("refused",)

    def __init__(self, started_at: float) -> None:
        super().__init__(started_at)
        self.refused: str | None = None


_current: ContextVar[_Attempt] = ContextVar("webhook_attempt")


class WebhookSender:
    """Posts to merchants' endpoints over one aiohttp connector. Create it inside a running event loop, and close it."""

    def __init__(
        self,
        allowed_networks: Sequence[Network] = (),
        *,
        timeout: float = TIMEOUT,
        limit: int = MAX_IN_FLIGHT,
        ssl_context: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """`allowed_networks` are the private networks that calls can reach (SANDBOX_WEBHOOK_ALLOW).

        `timeout` is in seconds and covers a whole attempt, from the lookup to the end of the response. `limit` is the maximum
        number of requests in flight. `ssl_context` replaces the system's trusted authorities. `resolver` replaces the
        system's name servers; the sender closes it. Raises RuntimeError if no event loop is running.
        """
        self._allowed = tuple(allowed_networks)
        self._seconds = timeout
        # aiohttp's own limit is unfair: a new request can take a free connection before the requests that wait for it. Under
        # steady load these wait until they time out, and the endpoint never sees them.
        self._slots = asyncio.Semaphore(limit)
        self._resolver = resolver or NameResolver()
        self._connector = aiohttp.TCPConnector(
            limit=0,
            resolver=self._resolver,
            keepalive_timeout=_KEEP_ALIVE,
            ssl=True if ssl_context is None else ssl_context,
            socket_factory=self._guarded_socket,
        )
        # No public option reports when a connection is open and its TLS handshake begins. A test checks that this one does.
        self._connector._factory = partial(_timed_protocol, self._connector._factory)
        # Parsing a URL and choosing its headers costs as much as sending a request.
        self._target = lru_cache(maxsize=4096)(partial(_target, asyncio.get_running_loop()))

    async def close(self) -> None:
        """Close the connections. A later `send` returns an error."""
        await self._connector.close()
        await self._resolver.close()

    async def send(self, url: str, body: bytes, headers: Mapping[str, str], method: str = "POST") -> SendResult:
        """Attempt to send `body` once and return the result. Any failure is in its `error`; raises nothing but CancelledError.

        `headers` are added to DEFAULT_HEADERS. If `limit` requests are in flight, the call waits first. That wait counts
        neither in the timeout nor in the duration, because the endpoint does not cause it. In practice nothing waits: callers
        share out fewer calls among merchants and endpoints (`capacity`).
        """
        try:
            target = self._target(url, method)
        except ValueError as error:
            return SendResult(None, {}, "", str(error), 0, error_class="INVALID_URL")
        async with self._slots:
            return await self._attempt(target, body, headers)

    async def _attempt(self, target: _Target, body: bytes, headers: Mapping[str, str]) -> SendResult:
        started = perf_counter()
        result = await self._post(target, body, headers, started, is_first=True)
        if result is None:
            # Most likely the server had closed the pooled connection before the request reached it, which says nothing about
            # the endpoint. So send the request once more, in the time that is left. If the first one did arrive, the
            # webhook-id shows that both are the same webhook.
            result = await self._post(target, body, headers, started, is_first=False)
            assert result is not None, "only the first request of an attempt is repeated"
        return result

    async def _post(
        self, target: _Target, body: bytes, headers: Mapping[str, str], started: float, *, is_first: bool
    ) -> SendResult | None:
        """Make one request of an attempt that began at `started`.

        Returns None if the first request reused a connection that the server had closed; the caller then repeats it.
        """
        attempt = _Attempt(started if is_first else perf_counter())
        _current.set(attempt)
        status: int | None = None
        received: dict[str, str] = {}
        chunks: list[bytes] = []
        error: str | None = None
        error_class: ErrorClass | None = None
        try:
            if self._connector.closed:
                raise RuntimeError("the sender is closed")
            data = _request(target, headers, body)
            async with asyncio.timeout(self._seconds if is_first else max(self._seconds - (perf_counter() - started), 0.001)):
                connection = await self._connector.connect(target.request, [], _NO_TIMEOUT)
                attempt.connected_at = perf_counter()
                reusable = False
                try:
                    message, content = await _exchange(connection, data)
                    attempt.responded_at = perf_counter()
                    status = message.code
                    received = stored_headers(message.headers)
                    await _read(content, chunks)
                    # If the body was not read to its end (too large, or cancelled), give up the connection. Reading on to
                    # keep it would let an untrusted server make us work.
                    reusable = content.at_eof() and not _has_unsent(connection)
                finally:
                    if reusable:
                        connection.release()
                    else:
                        connection.close()
            if 300 <= status <= 399:
                error, error_class = "redirect not followed", "REDIRECT"
            elif not 200 <= status <= 299:
                error_class = "HTTP_STATUS"
        except Exception as caught:
            if (
                is_first
                and status is None
                and attempt.opened_at is None
                and isinstance(caught, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError))
                and not isinstance(caught, aiohttp.ClientConnectorError)  # a failed new connection, so none was reused
                and perf_counter() - started < _STALE_WITHIN
            ):
                return None
            # If we refused one of several addresses and another did not respond, the error of the second is more useful.
            refused = attempt.refused if attempt.opened_at is None else None
            error_class, error = describe(caught, refused, self._seconds)
        ended = perf_counter()
        total = ceil((ended - started) * 1000)
        timings = attempt.timings(ended, total, looks_up=target.looks_up, is_tls=target.is_tls)
        return SendResult(status, received, _stored_body(chunks), error, total, timings, error_class)

    def _guarded_socket(self, addr_info: aiohttp.AddrInfoType) -> socket.socket:
        """Open the socket for a new connection. Raises OSError if the address is not allowed.

        Checking the URL instead would not be safe: the name can resolve to another address between the check and the
        connection (DNS rebinding). Literal addresses pass through here too. Runs in the context of its `send`.
        """
        family, kind, protocol, _, address = addr_info
        attempt = _current.get()
        if attempt.resolved_at is None:
            attempt.resolved_at = perf_counter()
        reason = refusal_reason(str(address[0]), self._allowed)
        if reason is not None:
            attempt.refused = reason
            raise OSError(errno.EACCES, reason)
        if attempt.opened_at is None:
            attempt.opened_at = perf_counter()
        return open_socket(family, kind, protocol)


def _timed_protocol(new_protocol: Callable[[], ResponseHandler]) -> ResponseHandler:
    """Create the protocol of a new connection. Runs in the context of its `send`, as soon as the TCP connection is open."""
    _current.get().tcp_at = perf_counter()
    return new_protocol()


def _target(loop: asyncio.AbstractEventLoop, url: str, method: str) -> _Target:
    """Prepare requests to a URL with a method. Raises ValueError with a message if it is not an HTTP URL."""
    # The message must not contain the URL: its user information or query can be the endpoint's password.
    try:
        parsed = URL(url)
    except (ValueError, TypeError):
        raise ValueError("the URL is not valid") from None
    if parsed.scheme not in ("http", "https") or not parsed.raw_host:
        raise ValueError("the URL is not valid: it must begin with http:// or https:// and name a host")
    try:
        request = aiohttp.ClientRequest(method, parsed, headers=DEFAULT_HEADERS, loop=loop)
    except (ValueError, TypeError):
        raise ValueError("the URL is not valid") from None
    # aiohttp adds the Host header and, from the URL's user information, the Authorization header.
    common = [f"{name}: {value}" for name, value in request.headers.items() if name != hdrs.CONTENT_LENGTH]
    head = "\r\n".join((f"{method} {request.url.raw_path_qs} HTTP/1.1", *common))
    looks_up = ":" not in parsed.raw_host and not parsed.raw_host.replace(".", "").isdigit()
    return _Target(request, head, looks_up, request.is_ssl())


def _request(target: _Target, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the bytes of a request. Raises ValueError for a header with a line break or another control character."""
    lines = [target.head]
    for name, value in headers.items():
        line = f"{name}: {value}"
        if not line.isprintable():
            raise ValueError("a header has a control character")
        lines.append(line)
    lines.append(f"Content-Length: {len(body)}\r\n\r\n")
    return "\r\n".join(lines).encode() + body


async def _exchange(connection: Connection, data: bytes) -> tuple[RawResponseMessage, aiohttp.StreamReader]:
    """Send a request. Return the head of its response, and a stream of its body. Raises aiohttp's errors."""
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None or transport.is_closing():
        raise aiohttp.ServerDisconnectedError
    # `read_bufsize` is how much aiohttp buffers: it pauses the server at twice this size.
    protocol.set_response_params(read_until_eof=True, auto_decompress=False, read_bufsize=BODY_LIMIT)
    transport.write(data)
    while True:
        message, content = await protocol.read()
        if not 100 <= message.code <= 199 or message.code == _SWITCHING_PROTOCOLS:
            return message, content


def _has_unsent(connection: Connection) -> bool:
    """Return whether the server responded before it had received the whole request."""
    return connection.transport is not None and connection.transport.get_write_buffer_size() > 0


async def _read(content: aiohttp.StreamReader, chunks: list[bytes]) -> None:
    """Read at most BODY_LIMIT bytes into `chunks`. After an error, `chunks` holds what arrived before it."""
    left = BODY_LIMIT
    while left > 0 and not content.at_eof():
        chunk = await content.read(left)
        chunks.append(chunk)
        left -= len(chunk)


def _stored_body(chunks: list[bytes]) -> str:
    raw = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    text = raw.decode("utf-8", "replace").replace("\0", "\ufffd")
    if len(text) * 3 <= BODY_LIMIT:
        return text
    # Each invalid byte became three bytes, so apply the limit again to the result.
    return text.encode()[:BODY_LIMIT].decode("utf-8", "ignore")


def stored_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a response's headers as they are stored: bounded, and without cookies and characters that PostgreSQL refuses."""
    kept: dict[str, str] = {}
    for name, value in headers.items():
        name = _clean(name, HEADER_NAME_LIMIT).lower()
        if name in kept:
            value = f"{kept[name]}, {value}"  # equivalent to repeated headers, RFC 9110 section 5.3
        elif len(kept) == HEADERS_LIMIT:
            continue
        # Hide the receiver's cookies: everybody with one of the merchant's keys can read its responses.
        kept[name] = HIDDEN if name == "set-cookie" else _clean(value, HEADER_VALUE_LIMIT)
    return kept


def _clean(text: str, limit: int) -> str:
    if len(text) <= limit and text.isprintable():  # neither NUL nor surrogates are printable
        return text
    # aiohttp decodes bytes that are not UTF-8 to lone surrogates, which PostgreSQL refuses.
    text = text[:limit].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text[:limit].replace("\0", "\ufffd")
