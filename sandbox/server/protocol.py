"""uvicorn's HTTP protocol with bounds: how long a request's head may be, how long its parts may take, how many connect.

uvicorn on httptools has no such limits: a header without an end makes each packet slower than the one before, and a
connection that says nothing stays for good.
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
from sandbox.infrastructure.metrics import REQUESTS
from sandbox.server.request_log import METHODS, choose_request_id

_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_LONGEST_METHOD: Final = 8
_UPGRADE: Final = frozenset({b"upgrade", b"http2-settings"})
_PARSED: Final = frozenset(method.encode() for method in METHODS)
_STAND_IN: Final = b"TRACE"
"""Given to the parser in place of a method that no route has: it refuses most of those with no more than a 400."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may ask of one process. Times are in seconds."""

    head_bytes: int = 64 * 1024
    """Request line and headers. Also what comes with a body and is no part of it (chunk extensions, trailers)."""
    head_seconds: float = 30.0
    """For a whole head, from the start of the connection or from the first byte of a later request."""
    body_seconds: float = 30.0
    """Until something of a body arrives, and before its rate counts."""
    body_rate: int = 1000
    """Bytes a second that a body must bring on average, after the first `body_seconds`."""
    write_seconds: float = 60.0
    """For a client that reads nothing of an answer that waits to be sent."""
    linger_seconds: float = 3.0
    """How long we read and drop what a refused client still sends: closed at once, it could not read why."""
    connections: int = 4096
    """Open at the same time."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. The server calls `check` about every second: a timer for each request would cost more."""

    def __init__(self, *args: Any, limits: Limits, public_url: str, **options: Any) -> None:
        """`public_url` is where problem types are explained; the other arguments are uvicorn's own."""
        super().__init__(*args, **options)
        self._limits = limits
        self._public_url = public_url
        self._deadline: float | None = None
        """By when the client must have sent what we wait for, on the loop's clock; None while we wait for nothing."""
        self._is_between = True
        """Whether no request is being received."""
        self._is_head = False
        """Whether the head of a request is being received."""
        self._begun = b""
        """What has come of a method, until it is whole."""
        self._method = ""
        """The request's own method, where the parser was given the stand-in."""
        self._upgrading = b""
        """The first line of a request that asks for another protocol, until it is begun again without that."""
        self._unused = 0
        """Bytes received since the last progress: a head that was complete, or a part of a body."""
        self._is_refused = False
        self._unsent = 0
        self._unsent_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin, unless too many connections are open."""
        super().connection_made(transport)
        self._deadline = self.loop.time() + self._limits.head_seconds
        if len(self.connections) > self._limits.connections:
            self._refuse(unavailable("Too many connections are open."))
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse what the client sent, within the limits."""
        if self._is_refused:
            return
        if self._deadline is None:
            self._deadline = self.loop.time() + self._limits.head_seconds
        self._unused += len(data)
        if self._is_between:
            data = self._with_known_method(self._begun + data if self._begun else data)
            if not data:
                return
        self._unset_keepalive_if_required()
        self._feed(data)
        if self._unused > self._limits.head_bytes and not self._is_refused:
            self._refuse(Problem("HEADERS_TOO_LARGE"))

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            # Clients ask for HTTP/2 in this way before they know whom they speak to (Java's own does). The parser would drop
            # the body then; the request is served as if it had not asked.
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            self._feed(head + data[stopped.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")

    def _head_without_upgrade(self) -> bytes:
        lines = [self._upgrading]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token for token in value.split(b",") if token.strip().lower() not in _UPGRADE]
                lines.append(b"connection: " + (b",".join(tokens) or b"keep-alive"))
            elif name not in _UPGRADE:
                lines.append(name + b": " + value)
        self._upgrading = b""
        self._is_between = True
        return b"\r\n".join([*lines, b"", b""])

    def _with_known_method(self, data: bytes) -> bytes:
        """The beginning of a request, with a method that the parser knows; nothing while the method is not whole."""
        self._begun = b""
        end = data.find(b" ", 0, _LONGEST_METHOD)
        if end > 0 and data[:end] in _PARSED:
            return data
        method, space, rest = data.partition(b" ")
        if not _TOKEN.fullmatch(method):
            return data
        if not space:
            self._begun = data
            return b""
        self._method = method.decode()
        return _STAND_IN + space + rest

    def on_message_begin(self) -> None:
        """Parser: a request begins."""
        super().on_message_begin()
        self._is_between, self._is_head = False, True
        if self._deadline is None:
            self._deadline = self.loop.time() + self._limits.head_seconds

    def on_headers_complete(self) -> None:
        """Parser: the head is complete. One packet may have brought more of it than is allowed."""
        size = len(self.url) + 4 * len(self.headers) + sum(map(len, chain.from_iterable(self.headers)))
        if size > self._limits.head_bytes:
            self._refuse(Problem("HEADERS_TOO_LARGE"))
            raise ValueError("the head is too large")  # stops the parser; its caller finds the request refused
        if self.parser.should_upgrade():
            version = self.parser.get_http_version().encode()
            self._upgrading = self.parser.get_method() + b" " + self.url + b" HTTP/" + version
            return  # and begun again without that
        self._is_head = False
        self._unused = 0
        self._deadline = self.loop.time() + self._limits.body_seconds
        super().on_headers_complete()
        # The request has its list. Trailers go to another and are dropped: they would speak after the request was acted upon.
        self.headers = []
        if self._method:
            self.scope["method"], self._method = self._method, ""  # the request is served in a task, after this

    def on_body(self, body: bytes) -> None:
        """Parser: a part of the body. It buys as much time as it takes at the lowest rate."""
        super().on_body(body)
        self._unused = 0
        if not self.cycle.response_complete and self._deadline is not None:
            patience = self.loop.time() + self._limits.body_seconds
            self._deadline = min(self._deadline + len(body) / self._limits.body_rate, patience)

    def on_message_complete(self) -> None:
        """Parser: the request is complete."""
        if self._upgrading:
            return
        super().on_message_complete()
        self._is_between = True
        self._unused = 0
        self._deadline = None

    def on_response_complete(self) -> None:
        """The answer is sent. A body that still comes is dropped, for as long as a part of it may take."""
        if not self._is_between and not self._is_head:
            self._deadline = self.loop.time() + self._limits.body_seconds
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        if not self._is_refused:
            text = "is not valid HTTP/1.1"
            self._refuse(Problem("VALIDATION_ERROR", f"The request {text}.", errors=[("request", text)]))

    def check(self, now: float) -> None:
        """End the connection if the client has kept us waiting for too long. `now` is the loop's time."""
        waiting = self.transport.get_write_buffer_size()
        if not self._unsent or waiting < self._unsent:
            self._unsent_since = now
        self._unsent = waiting
        if waiting and now - self._unsent_since >= self._limits.write_seconds:
            self.transport.abort()
        elif self._deadline is not None and now >= self._deadline and not self.transport.is_closing():
            self._end(now)

    def _end(self, now: float) -> None:
        is_served = self.cycle is not None and not self.cycle.response_complete
        if is_served and not self.cycle.more_body:
            # What is late is a request behind this one: its time is counted from when this one is answered.
            self._deadline = now + self._limits.head_seconds
        elif self._is_refused or self._is_between or not (self._is_head or is_served):
            self.transport.close()  # nothing was asked, or it is answered: nobody waits for a word
        elif is_served and (self.flow.read_paused or self.cycle.waiting_for_100_continue):
            self._deadline = now + self._limits.body_seconds  # it is we who do not read
        else:
            self._refuse(Problem("REQUEST_TIMEOUT"))

    def _refuse(self, problem: Problem) -> None:
        """Answer with a problem in place of the application, and take no more from this connection."""
        self._is_refused = True
        self._deadline = self.loop.time() + self._limits.linger_seconds
        is_named = not self._is_between
        request_id = choose_request_id(self.scope["headers"] if is_named else ())
        path = unquote(self.url.partition(b"?")[0][:200].decode("latin-1")) if is_named else "/"
        _log.info("refused", request_id=request_id, path=redaction.path(path), status=problem.status, code=problem.code)
        REQUESTS.labels("OTHER", "unknown", str(problem.status)).inc()
        if self.cycle is not None and not self.cycle.response_complete:
            if not self.cycle.more_body:
                self.cycle.keep_alive = False  # an earlier request, which is served to its end
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
