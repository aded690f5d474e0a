"""uvicorn's HTTP protocol with limits on header size, timeouts and connections.

uvicorn with httptools has no such limits: an endless header costs quadratic time, and an idle connection is never closed.
"""

import asyncio
import re
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final
from urllib.parse import unquote

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from sandbox.domain import redaction
from sandbox.domain.errors import MEDIA_TYPE, Problem, unavailable
from sandbox.http.hosts import HostCheck
from sandbox.infrastructure.metrics import REQUESTS
from sandbox.server.joined_writes import JoinedWrites
from sandbox.server.request_log import METHODS, choose_request_id

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_MAX_METHOD_LENGTH: Final = 8
_UPGRADE: Final = frozenset({b"upgrade", b"http2-settings"})
_PARSER_METHODS: Final = frozenset(method.encode() for method in METHODS)
_PLACEHOLDER_METHOD: Final = b"TRACE"
"""Replaces unsupported methods, most of which the parser would reject with a bare 400."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """Per-process limits on clients."""

    head_bytes: int = 64 * 1024
    """Maximum size of request line and headers. Also covers chunk extensions and trailers."""
    head_seconds: float = 30.0
    """Timeout for request line and headers, from the start of the connection or the first byte of a later request."""
    body_seconds: float = 30.0
    """Timeout for the first body bytes; grace period before `body_rate` applies."""
    body_rate: int = 1000
    """Minimum average body rate in bytes per second, after the first `body_seconds`."""
    write_seconds: float = 60.0
    """Timeout for a client that does not read the response."""
    linger_seconds: float = 3.0
    """How long to drain a rejected client's input, so that it can still read the error."""
    connections: int = 4096
    """Maximum number of open connections."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. The server calls `check` about once a second, which is cheaper than a timer per request."""

    def __init__(self, *args: Any, limits: Limits, public_url: str, check_host: HostCheck, **options: Any) -> None:
        """`public_url` is the base URL of the problem pages; the arguments that are not named here are uvicorn's."""
        super().__init__(*args, **options)
        self._limits = limits
        self._public_url = public_url
        self._check_host = check_host
        self._deadline: float | None = None
        """Deadline for the client's next data, on the event loop's clock; None if none is expected."""
        self._is_idle = True
        """Whether no request is being received."""
        self._is_reading_head = False
        """Whether a request line or headers are being received."""
        self._partial_method = b""
        """A partially received method."""
        self._method = ""
        """The real method, if the parser got the placeholder."""
        self._upgrade_request_line = b""
        """Request line of an upgrade request, to be re-parsed without the upgrade."""
        self._bytes_since_progress = 0
        """Bytes received since the last complete header section or body chunk."""
        self._is_rejected = False
        self._unsent = 0
        self._unsent_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows the type too
        """Accept the connection, unless too many are open."""
        super().connection_made(transport)
        self.transport = JoinedWrites(transport, self.loop)  # type: ignore[assignment]  # has the methods that uvicorn calls
        self._deadline = self.loop.time() + self._limits.head_seconds
        if len(self.connections) > self._limits.connections:
            self._reject(unavailable("Too many connections are open."))
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse the client's data, within the limits."""
        if self._is_rejected:
            return
        if self._deadline is None:
            self._deadline = self.loop.time() + self._limits.head_seconds
        self._bytes_since_progress += len(data)
        if self._is_idle:
            data = self._with_known_method(self._partial_method + data if self._partial_method else data)
            if not data:
                return
        self._unset_keepalive_if_required()
        self._feed(data)
        if self._bytes_since_progress > self._limits.head_bytes and not self._is_rejected:
            self._reject(Problem("HEADERS_TOO_LARGE"))

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            # Some clients (such as Java's HttpClient) request HTTP/2 this way before they know whether the server supports it.
            # The parser would drop the body, so serve the request as if it had no Upgrade header.
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            self._feed(head + data[stopped.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")

    def _head_without_upgrade(self) -> bytes:
        lines = [self._upgrade_request_line]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token for token in value.split(b",") if token.strip().lower() not in _UPGRADE]
                lines.append(b"connection: " + (b",".join(tokens) or b"keep-alive"))
            elif name not in _UPGRADE:
                lines.append(name + b": " + value)
        self._upgrade_request_line = b""
        self._is_idle = True
        return b"\r\n".join([*lines, b"", b""])

    def _with_known_method(self, data: bytes) -> bytes:
        """Return the data with a method that the parser supports, or b'' while the method is incomplete."""
        self._partial_method = b""
        end = data.find(b" ", 0, _MAX_METHOD_LENGTH)
        if end > 0 and data[:end] in _PARSER_METHODS:
            return data
        method, space, rest = data.partition(b" ")
        if not _TOKEN.fullmatch(method):
            return data
        if not space:
            self._partial_method = data
            return b""
        self._method = method.decode()
        return _PLACEHOLDER_METHOD + space + rest

    def on_message_begin(self) -> None:
        """Called by the parser when a request starts."""
        super().on_message_begin()
        self._is_idle, self._is_reading_head = False, True
        if self._deadline is None:
            self._deadline = self.loop.time() + self._limits.head_seconds

    def on_headers_complete(self) -> None:
        """Called by the parser after the last header. Checks the size again: a single packet may exceed the limit."""
        size = len(self.url) + 4 * len(self.headers) + sum(map(len, chain.from_iterable(self.headers)))
        if size > self._limits.head_bytes:
            self._reject(Problem("HEADERS_TOO_LARGE"))
            raise ValueError("the headers are too large")  # stops the parser; the caller checks `_is_rejected`
        refusal = self._check_host(self.headers, self.parser.get_http_version())
        if refusal is not None:
            self._reject(refusal)
            raise ValueError("the host is refused")  # stops the parser
        if self.parser.should_upgrade():
            version = self.parser.get_http_version().encode()
            self._upgrade_request_line = self.parser.get_method() + b" " + self.url + b" HTTP/" + version
            return  # re-parsed in `_feed` without the upgrade
        self._is_reading_head = False
        self._bytes_since_progress = 0
        self._deadline = self.loop.time() + self._limits.body_seconds
        super().on_headers_complete()
        # Use a new list, so that trailers are discarded instead of changing the headers of a request already in progress.
        self.headers = []
        if self._method:
            self.scope["method"], self._method = self._method, ""  # the task that serves the request starts later

    def on_body(self, body: bytes) -> None:
        """Called by the parser for each body chunk. Extends the deadline by the chunk's size divided by the minimum rate."""
        super().on_body(body)
        self._bytes_since_progress = 0
        if not self.cycle.response_complete and self._deadline is not None:
            latest_deadline = self.loop.time() + self._limits.body_seconds
            self._deadline = min(self._deadline + len(body) / self._limits.body_rate, latest_deadline)

    def on_message_complete(self) -> None:
        """Called by the parser at the end of a request."""
        if self._upgrade_request_line:
            return
        super().on_message_complete()
        self._is_idle = True
        self._bytes_since_progress = 0
        self._deadline = None

    def on_response_complete(self) -> None:
        """Called by uvicorn after the response. Discards any remaining body for up to `body_seconds`."""
        if not self._is_idle and not self._is_reading_head:
            self._deadline = self.loop.time() + self._limits.body_seconds
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Reject invalid HTTP."""
        if not self._is_rejected:
            text = "is not valid HTTP/1.1"
            self._reject(Problem("VALIDATION_ERROR", f"The request {text}.", errors=[("request", text)]))

    def check(self, now: float) -> None:
        """Enforce the timeouts. `now` is the event loop's time."""
        unsent = self.transport.get_write_buffer_size()
        if not self._unsent or unsent < self._unsent:
            self._unsent_since = now
        self._unsent = unsent
        if unsent and now - self._unsent_since >= self._limits.write_seconds:
            self.transport.abort()
        elif self._deadline is not None and now >= self._deadline and not self.transport.is_closing():
            self._on_timeout(now)

    def _on_timeout(self, now: float) -> None:
        is_served = self.cycle is not None and not self.cycle.response_complete
        if is_served and not self.cycle.more_body:
            # The overdue data belongs to a pipelined request; restart its timer.
            self._deadline = now + self._limits.head_seconds
        elif self._is_rejected or self._is_idle or not (self._is_reading_head or is_served):
            self.transport.close()  # no request is pending, so close without a response
        elif is_served and (self.flow.read_paused or self.cycle.waiting_for_100_continue):
            self._deadline = now + self._limits.body_seconds  # the server paused reading, so the client is not late
        else:
            self._reject(Problem("REQUEST_TIMEOUT"))

    def _reject(self, problem: Problem) -> None:
        """Respond with a problem instead of calling the application, and read no more requests from this connection."""
        self._is_rejected = True
        self._deadline = self.loop.time() + self._limits.linger_seconds
        has_request_line = not self._is_idle
        request_id = choose_request_id(self.scope["headers"] if has_request_line else ())
        path = unquote(self.url.partition(b"?")[0][:200].decode("latin-1")) if has_request_line else "/"
        _log.info(
            "request_rejected", request_id=request_id, path=redaction.path(path), status=problem.status, code=problem.code
        )
        REQUESTS.labels("OTHER", "unknown", str(problem.status)).inc()
        if self.cycle is not None and not self.cycle.response_complete:
            if not self.cycle.more_body:
                self.cycle.keep_alive = False  # let the earlier request finish
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.close()
                return
        body = problem.body(self._public_url, path, request_id)
        headers = {
            **problem.headers,
            "content-type": MEDIA_TYPE,
            "content-length": str(len(body)),
            "connection": "close",
            "x-request-id": request_id,
        }
        head = "".join(f"{name.lower()}: {value}\r\n" for name, value in headers.items())
        self.transport.write(STATUS_LINE[problem.status] + head.encode("latin-1") + b"\r\n" + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
