"""The outermost ASGI layer. It gives each request an id, counts and logs it, and adds the id to the response."""

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

from sandbox.domain import redaction, trace
from sandbox.domain.clock import render
from sandbox.domain.ids import uuid7
from sandbox.http.fault import InjectedFault, note
from sandbox.http.faults.injection import inject_response
from sandbox.http.journal.journal import BODY_LIMIT, JOURNALED, NOT_JOURNALED, Entry, Journal, RedactionRules
from sandbox.http.operation import JSON, Operation, page_item
from sandbox.http.request import ANONYMOUS, Request
from sandbox.infrastructure import tracing
from sandbox.infrastructure.metrics import REQUEST_SECONDS, REQUESTS

_PRINTABLE: Final = re.compile(rb"[\x20-\x7e]{1,128}\Z")
_JOURNALED_BYTES: Final = BODY_LIMIT + 500
"""Bytes of a body kept for redaction: enough to recognize a secret that starts inside the part shown."""


class RequestLog:
    """Wraps an ASGI application. Sets `request_id`, and `method` as the client sent it, in the request's state."""

    def __init__(self, app: ASGIApp, journal: Journal | None = None) -> None:
        self._app = app
        self._journal = journal
        # Binding per line would make each log line 50 % slower.
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
            # Copy: the server still needs the original method.
            scope = {**scope, "method": _ROUTED_AS[method]}
        header = (b"x-request-id", request_id.encode())
        status, body, replayed = 0, b"", False

        async def send_with_id(message: Any) -> None:
            nonlocal status, body, replayed
            if message["type"] == "http.response.start":
                status = message["status"]
                replayed = any(name == b"idempotent-replayed" for name, _ in message["headers"])
                message["headers"] = [*message["headers"], header]
            elif is_head:
                return  # an empty body was already sent
            elif not body:
                body = message.get("body", b"")
            request: Request | None = state.get("request")
            deliver = send
            if request is not None and request.fault is not None:
                deliver = functools.partial(_send_faulty, request.fault, receive, send)
            await deliver(message)
            if is_head:
                # End the response immediately, so that a streaming handler sees a disconnect.
                await deliver({"type": "http.response.body", "body": b"", "more_body": False})

        started = time.perf_counter()
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - started
            # Use the route's template: each path with an id would add a counter.
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
                    api_key_id=request.caller.key_id or None,
                    replayed=replayed,
                    headers=request.headers,
                    request_body=request.json[:_JOURNALED_BYTES],
                    response_body=body[:_JOURNALED_BYTES],
                    fault=None if request.fault is None else note(request.fault),
                    began=int((time.time() - seconds) * 1_000_000),
                )
                self._journal.record(request.merchant_id, entry, rules_of(request.operation), is_validated=request.is_validated)
            if tracing.is_on() and request is not None and not (request.operation.access == "public" and method == "GET"):
                _export_span(request, route, status, seconds)
            self._log.info(
                "request",
                request_id=request_id,
                trace_id=trace.trace_id(trace.derive(request_id) if request is None else request.traceparent),
                method=method,
                path=redaction.path(scope["path"])[:200],
                status=status,
                ms=round(seconds * 1000, 2),
            )


def _export_span(request: Request, route: str, status: int, seconds: float) -> None:
    attributes = {
        "http.request.method": request.method,
        "http.route": route,
        "url.path": redaction.path(request.path)[:200],
        "http.response.status_code": status,
        "psp.merchant.id": request.merchant_id or None,
        "psp.request.id": request.request_id,
    }
    error = f"status {status}" if status >= 500 else None
    # The webhooks name the span of the caller as their parent or, if the caller sent none, this span.
    is_root = trace.given(request.headers) is None
    name, traceparent = f"{request.method} {route}", request.traceparent
    tracing.span(name, traceparent, seconds, attributes, kind="SERVER", error=error, is_root=is_root)


async def _send_faulty(fault: InjectedFault, receive: Receive, send: Send, message: Any) -> None:
    await inject_response(fault, message, receive, send)


# Operations compare by identity, so the cache has one entry per route.
@functools.cache
def rules_of(operation: Operation) -> RedactionRules:
    """Return the redaction rules for an operation's journal entries, derived from its declared types.

    A response that is not JSON is hidden: no type says which of its parts are secrets or URLs.
    """
    responses: dict[int, redaction.Shape] = {}
    for status, kind in operation.responses.items():
        if operation.media_type != JSON:
            responses[status] = redaction.NEVER
            continue
        item = page_item(kind)
        responses[status] = redaction.shape_of(kind) if item is None else redaction.page_of(redaction.shape_of(item))
    names = redaction.names_of(parameter.name for parameter in operation.query)
    return RedactionRules(redaction.shape_of(operation.body), responses, names)


def _is_journaled(request: Request) -> bool:
    is_recorded = request.path.startswith(JOURNALED) and not request.path.startswith(NOT_JOURNALED)
    return request.caller is not ANONYMOUS and (is_recorded or bool(request.operation.dialect))


# At most one entry per method, route and status. Looking up labels costs more than counting.
@functools.cache
def _counter(method: str, route: str, status: int) -> Counter:
    return REQUESTS.labels(method, route, str(status))


@functools.cache
def _seconds(route: str) -> Histogram:
    return REQUEST_SECONDS.labels(route)


METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_ROUTED_AS: Final[dict[str, Any]] = {"HEAD": "GET", "OPTIONS": "ALLOW?"}
"""HEAD is routed as GET, without a response body. OPTIONS is routed as a method that no route has, because Litestar's own
response to OPTIONS lists only some methods. The router's error then lists all of them, and `ProblemHandler` responds."""


def choose_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the X-Request-Id header if it is 1 to 128 printable ASCII characters, otherwise a new UUIDv7.

    Logs and problems show the id, so an X-Request-Id that contains a key or a secret is ignored.
    """
    given = next((value for name, value in headers if name == b"x-request-id"), b"")
    if _PRINTABLE.match(given) and not redaction.has_secret(given.decode()):
        return given.decode()
    return uuid7(time.time_ns() // 1_000_000, random.getrandbits(32), random.getrandbits(42))
