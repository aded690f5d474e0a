"""The outermost layer: names each request, counts it, logs it, and says its id in the answer."""

import functools
import random
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send
from prometheus_client import Counter, Histogram

from sandbox.domain import redaction
from sandbox.domain.clock import render
from sandbox.domain.fault import note
from sandbox.domain.ids import uuid7
from sandbox.faults.injection import inject_response
from sandbox.http.operation import Operation, page_item
from sandbox.http.request import ANONYMOUS, Request
from sandbox.infrastructure.metrics import REQUEST_SECONDS, REQUESTS
from sandbox.journal.journal import BODY_LIMIT, JOURNALED, NOT_JOURNALED, Entry, Journal, Rules

_PRINTABLE: Final = re.compile(rb"[\x20-\x7e]{1,128}\Z")
_JOURNALED_BYTES: Final = BODY_LIMIT + 500
"""So much of a body is kept until it is redacted: whatever begins in what is shown is long enough then to be known."""


class RequestLog:
    """Wraps an ASGI application. A request's state holds its `request_id` and the `method` that the client sent."""

    def __init__(self, app: ASGIApp, journal: Journal | None = None) -> None:
        self._app = app
        self._journal = journal
        # Bound here and not at each line, which would cost half of what a line does.
        self._log = structlog.get_logger().bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        request_id = choose_request_id(scope["headers"])
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"], state["method"] = request_id, scope["method"]
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        is_head = method == "HEAD"
        if method in _ROUTED_AS:
            # A copy: the server must still know what was asked.
            scope = {**scope, "method": _ROUTED_AS[method]}
        header = (b"x-request-id", request_id.encode())
        status, answer, replayed = 0, b"", False

        async def named(message: Any) -> None:
            nonlocal status, answer, replayed
            if message["type"] == "http.response.start":
                status = message["status"]
                replayed = any(name == b"idempotent-replayed" for name, _ in message["headers"])
                message["headers"] = [*message["headers"], header]
            elif is_head:
                return  # sent below, and empty
            elif not answer:
                answer = message.get("body", b"")
            await deliver(message)
            if is_head:
                # At once, so that what streams sees its client leave.
                await deliver({"type": "http.response.body", "body": b"", "more_body": False})

        async def deliver(message: Any) -> None:
            request: Request | None = state.get("request")
            if request is not None and request.fault is not None:
                await inject_response(request.fault, message, receive, send)
            else:
                await send(message)

        began = time.perf_counter()
        try:
            await self._app(scope, receive, named)
        finally:
            seconds = time.perf_counter() - began
            # The route's template, not the path: ids would make a counter each.
            route = scope.get("path_template") or "unknown"
            _counter(method, route, status).inc()
            _seconds(route).observe(seconds)
            request: Request | None = state.get("request")
            if self._journal is not None and request is not None and _is_journaled(request):
                entry = Entry(
                    at=render(datetime.now(UTC)),
                    method=method,
                    path=scope["path"],
                    query=scope["query_string"],
                    status=status,
                    duration_ms=round(seconds * 1000, 2),
                    request_id=request_id,
                    api_key_id=request.caller.key_id,
                    replayed=replayed,
                    headers=request.headers,
                    request_body=request.json[:_JOURNALED_BYTES],
                    response_body=answer[:_JOURNALED_BYTES],
                    fault=None if request.fault is None else note(request.fault),
                )
                self._journal.note(request.merchant_id, entry, rules_of(request.operation), is_validated=request.is_validated)
            self._log.info(
                "request",
                request_id=request_id,
                method=method,
                path=redaction.path(scope["path"])[:200],
                status=status,
                ms=round(seconds * 1000, 2),
            )


# An operation compares as itself, and there are as many as routes.
@functools.cache
def rules_of(operation: Operation) -> Rules:
    """What may be shown of the calls of an operation, by the types that it declares."""
    answers = {}
    for status, kind in operation.responses.items():
        item = page_item(kind)
        answers[status] = redaction.shape_of(kind) if item is None else redaction.page_of(redaction.shape_of(item))
    names = redaction.names_of(parameter.name for parameter in operation.query)
    return Rules(redaction.shape_of(operation.body), answers, names)


def _is_journaled(request: Request) -> bool:
    return request.caller is not ANONYMOUS and request.path.startswith(JOURNALED) and not request.path.startswith(NOT_JOURNALED)


# Bounded by methods, routes and statuses; a look-up of labels costs more than the counting.
@functools.cache
def _counter(method: str, route: str, status: int) -> Counter:
    return REQUESTS.labels(method, route, str(status))


@functools.cache
def _seconds(route: str) -> Histogram:
    return REQUEST_SECONDS.labels(route)


METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


_ROUTED_AS: Final[dict[str, Any]] = {"HEAD": "GET", "OPTIONS": "ALLOW?"}
"""HEAD is a GET whose body is not sent. Litestar's own answer to OPTIONS lists some methods only; asked for a method that
no path has, its router names all of them, and the handler of errors answers."""


def choose_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """A request's id: the X-Request-Id of its headers if that is 1 to 128 printable ASCII characters, else a new UUIDv7.

    It is shown wherever the request is told of, so one that holds a key or a secret is not taken.
    """
    given = next((value for name, value in headers if name == b"x-request-id"), b"")
    if _PRINTABLE.match(given) and not redaction.has_secret(given.decode()):
        return given.decode()
    return uuid7(time.time_ns() // 1_000_000, random.getrandbits(32), random.getrandbits(42))
