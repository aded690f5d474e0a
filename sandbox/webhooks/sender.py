"""Post webhooks over one shared pool of connections; every wait and every size bounded, nothing ever raised.

What a merchant's server answers is a stranger's input, so it is cut, cleaned and never followed. Source of the
limits: the wire contract, section 3, "Retries" (15 s, no redirects, 20 000 bytes of response).
"""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Final

import aiohttp
from aiohttp import http_exceptions
from aiohttp.abc import AbstractResolver
from yarl import URL

from sandbox.domain.address_guard import Network, refusal
from sandbox.domain.redaction import HIDDEN
from sandbox.webhooks.resolver import LookupTimeoutError, NameResolver
from sandbox.webhooks.sockets import open_socket

TIMEOUT = 15.0
"""Seconds for everything: name, connection, request, and the whole answer."""
LIMIT = 2500
"""Requests in flight: more than `capacity` gives out."""
BODY_LIMIT = 20_000
HEADERS_LIMIT = 50
HEADER_NAME_LIMIT = 200
HEADER_VALUE_LIMIT = 1000

# Below the 5 s after which Node.js and uvicorn close idle connections: who reuses one at that moment loses a request.
_KEEP_ALIVE = 4.0
# A connection that its server had closed already shows it within a round trip; later than this, the server had
# the request and dropped it.
_STALE_WITHIN = 1.0

DEFAULT_HEADERS: Final = {
    "content-type": "application/json",
    "user-agent": "PSP-Sandbox-Webhooks/1",
    "accept": "*/*",
    # Bodies are stored as they come, so compressed ones would be unreadable (and unpacked ones a bomb).
    "accept-encoding": "identity",
}
"""What every webhook is sent with, beside the headers of its own."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """What became of one attempt. It succeeded only if `error` is None and `status` is a 2xx.

    With a `status` there was an answer, even when an `error` says that it broke off or was not followed.
    All texts are free of NUL and of lone surrogates, which PostgreSQL refuses.
    """

    status: int | None
    response_headers: dict[str, str]
    """Names in lower case; at most HEADERS_LIMIT of them, values of at most HEADER_VALUE_LIMIT characters."""
    response_body: str
    """At most BODY_LIMIT bytes as UTF-8; the rest was not read."""
    error: str | None
    duration_ms: int


class _Attempt:
    """What the connector did for one `send`: the socket factory knows the address, but not for whom it is."""

    __slots__ = ("opened", "refused")

    def __init__(self) -> None:
        self.opened = False
        self.refused: str | None = None


_current: ContextVar[_Attempt] = ContextVar("webhook_attempt")


class WebhookSender:
    """Posts to merchants' endpoints over one aiohttp session. Make it inside a running event loop; close it."""

    def __init__(
        self,
        allowed_networks: Sequence[Network] = (),
        *,
        timeout: float = TIMEOUT,
        limit: int = LIMIT,
        ssl_context: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        """Take the private networks that may be reached (SANDBOX_WEBHOOK_ALLOW) and the bounds.

        `timeout` is in seconds and covers a whole attempt from looking up the name to the end of the answer.
        `ssl_context` replaces the system's trusted authorities. `resolver` replaces the system's name servers; it is
        closed with the sender. RuntimeError without a running loop.
        """
        self._allowed = tuple(allowed_networks)
        self._seconds = timeout
        # aiohttp's own limit has no order: who asks just as a connection comes free takes it before those who wait, and
        # under steady load those wait until they time out, though the endpoint never saw them.
        self._turns = asyncio.Semaphore(limit)
        self._resolver = resolver or NameResolver()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                resolver=self._resolver,
                keepalive_timeout=_KEEP_ALIVE,
                ssl=True if ssl_context is None else ssl_context,
                socket_factory=self._guarded_socket,
            ),
            timeout=aiohttp.ClientTimeout(total=timeout),
            headers=DEFAULT_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            # How far a server may run ahead of what is read; aiohttp pauses it at twice this.
            read_bufsize=BODY_LIMIT,
        )

    async def close(self) -> None:
        """Close the session and its connections. A `send` after it returns an error."""
        await self._session.close()
        await self._resolver.close()

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> SendResult:
        """Make one attempt to post `body` and say what came of it. Whatever goes wrong is in the result's `error`.

        `headers` are added to a JSON content type and a user agent. Beyond the limit it waits its turn first, which
        counts neither in the timeout nor in the duration: the endpoint is not to blame for it. Callers share out turns
        among merchants and endpoints beforehand (`capacity`), so that the limit is not met. Raises CancelledError only.
        """
        try:
            target = _target(url)
        except ValueError as error:
            return SendResult(None, {}, "", str(error), 0)
        async with self._turns:
            return await self._attempt(target, body, headers)

    async def _attempt(self, target: URL, body: bytes, headers: Mapping[str, str]) -> SendResult:
        started = perf_counter()
        attempt = _Attempt()
        _current.set(attempt)
        result = await self._post(target, body, headers, attempt, started, None)
        if result is None:
            # The pool's connection had most likely been closed by its server before the request reached it, which
            # says nothing about the endpoint. Should the request have arrived after all, its webhook-id tells that
            # both are one; so it goes out again, once, in what time is left.
            left = aiohttp.ClientTimeout(total=max(self._seconds - (perf_counter() - started), 0.001))
            result = await self._post(target, body, headers, attempt, started, left)
            assert result is not None, "only the first request of an attempt asks to be repeated"
        return result

    async def _post(
        self,
        target: URL,
        body: bytes,
        headers: Mapping[str, str],
        attempt: _Attempt,
        started: float,
        left: aiohttp.ClientTimeout | None,
    ) -> SendResult | None:
        """Make one request, the second one with the time that is `left`.

        None when the first one met a reused connection that had died, so it is to be repeated.
        """
        status: int | None = None
        received: dict[str, str] = {}
        chunks: list[bytes] = []
        error: str | None = None
        try:
            if left is None:  # the session's own, which costs nothing to build
                response = await self._session.post(target, data=body, headers=headers, allow_redirects=False)
            else:
                response = await self._session.post(target, data=body, headers=headers, allow_redirects=False, timeout=left)
            try:
                status = response.status
                received = _kept_headers(response)
                await _read(response.content, chunks)
            finally:
                # A body that was not read to its end, for its size or a cancellation, costs its connection:
                # reading on to save that would be work that a stranger orders.
                if not response.content.at_eof():
                    response.close()
            if 300 <= status <= 399:
                error = "redirect not followed"
        except Exception as caught:
            if (
                left is None
                and status is None
                and not attempt.opened
                and isinstance(caught, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError))
                and not isinstance(caught, aiohttp.ClientConnectorError)  # nothing was reused, nor can be
                and perf_counter() - started < _STALE_WITHIN
            ):
                return None
            error = _sentence(caught, attempt, self._seconds)
        duration = round((perf_counter() - started) * 1000)
        return SendResult(status, received, _kept_body(chunks), error, duration)

    def _guarded_socket(self, addr_info: aiohttp.AddrInfoType) -> socket.socket:
        """Open the socket for an address that is about to be connected, or raise OSError when it must not be.

        Here, and not on the URL, because a name may resolve to something else between a check and the connection
        (DNS rebinding); literal addresses pass here too. It runs in the context of the `send` it is for.
        """
        family, kind, protocol, _, address = addr_info
        attempt = _current.get()
        reason = refusal(str(address[0]), self._allowed)
        if reason is not None:
            attempt.refused = reason
            raise OSError(errno.EACCES, reason)
        attempt.opened = True
        return open_socket(family, kind, protocol)


@lru_cache(maxsize=4096)
def _target(url: str) -> URL:
    """Parse a URL, once for all the webhooks of an endpoint. ValueError with a sentence when it is no HTTP URL."""
    # Without the URL in the sentence: its user information or query may be the endpoint's password.
    try:
        target = URL(url)
    except (ValueError, TypeError):
        raise ValueError("the URL is not valid") from None
    if target.scheme not in ("http", "https") or not target.raw_host:
        raise ValueError("the URL is not valid: it must begin with http:// or https:// and name a host")
    return target


async def _read(content: aiohttp.StreamReader, chunks: list[bytes]) -> None:
    """Read at most BODY_LIMIT bytes into `chunks`, which keeps what came before an error."""
    left = BODY_LIMIT
    while left > 0 and not content.at_eof():
        chunk = await content.read(left)
        chunks.append(chunk)
        left -= len(chunk)


def _kept_body(chunks: list[bytes]) -> str:
    raw = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    text = raw.decode("utf-8", "replace").replace("\0", "\ufffd")
    if len(text) * 3 <= BODY_LIMIT:
        return text
    # Each replaced byte became three, so the bound is set again on what will be stored.
    return text.encode()[:BODY_LIMIT].decode("utf-8", "ignore")


def _kept_headers(response: aiohttp.ClientResponse) -> dict[str, str]:
    kept: dict[str, str] = {}
    for name, value in response.headers.items():
        name = _clean(name, HEADER_NAME_LIMIT).lower()
        if name in kept:
            value = f"{kept[name]}, {value}"  # the meaning of a repeated header, RFC 9110 section 5.3
        elif len(kept) == HEADERS_LIMIT:
            continue
        # A receiver's cookies are its own; everybody with a key of the merchant reads what it answered.
        kept[name] = HIDDEN if name == "set-cookie" else _clean(value, HEADER_VALUE_LIMIT)
    return kept


def _clean(text: str, limit: int) -> str:
    if len(text) <= limit and text.isprintable():  # neither NUL nor surrogates are
        return text
    # aiohttp keeps bytes that are not UTF-8 as lone surrogates, which no database stores.
    text = text[:limit].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text[:limit].replace("\0", "\ufffd")


def _sentence(error: Exception, attempt: _Attempt, seconds: float) -> str:
    """Say what went wrong, from the most telling class to the most general one.

    Never str(error): aiohttp puts the URL into it, and the URL may hold the endpoint's password.
    """
    if isinstance(error, asyncio.TimeoutError):
        return f"timed out after {seconds:g} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        return _connecting(error, attempt)
    if isinstance(error, aiohttp.InvalidURL):
        return "the URL is not valid"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without a complete answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the response broke off or its body is malformed"
    if isinstance(error, aiohttp.ClientResponseError):
        if _caused_by(error, http_exceptions.LineTooLong):
            return "the response's headers are too large"
        return "the response is not valid HTTP"
    if isinstance(error, OSError):
        return f"connection lost: {_reason(error)}"
    if isinstance(error, (ValueError, TypeError)):
        return "the request could not be written: a header or the URL is not valid"
    # Also a RuntimeError of a session that was closed meanwhile.
    return f"the request failed ({type(error).__name__})"


def _connecting(error: aiohttp.ClientConnectorError, attempt: _Attempt) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        why = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else "it does not match the host"
        return f"TLS certificate not valid: {why}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        if isinstance(error.os_error, LookupTimeoutError):
            return "the host name could not be looked up: no name server answered in time"
        return "the host name does not resolve"
    if isinstance(error, aiohttp.ClientSSLError):
        reason = getattr(error.os_error, "reason", None)  # OpenSSL's, such as WRONG_VERSION_NUMBER
        return f"TLS handshake failed: {reason.replace('_', ' ').lower()}" if reason else "TLS handshake failed"
    # Of several addresses one may be refused and another not answer: then the second tells more.
    if attempt.refused is not None and not attempt.opened:
        return attempt.refused
    if error.os_error.errno == errno.ECONNREFUSED:
        return "connection refused"
    return f"connection failed: {_reason(error.os_error)}"


def _caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    """Look for a kind of error behind another one: aiohttp's parser wraps its own twice."""
    cause = error.__cause__
    return cause is not None and (isinstance(cause, kind) or _caused_by(cause, kind))


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else "no reason known"
