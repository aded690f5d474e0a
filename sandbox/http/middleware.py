"""The outermost layer: names each request, counts it, logs it, and says its id in the answer."""

import functools
import random
import re
import time
from typing import Any, Final

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send
from prometheus_client import Counter, Histogram

from sandbox.ids import uuid7
from sandbox.metrics import REQUEST_SECONDS, REQUESTS

_PRINTABLE: Final = re.compile(rb"[\x20-\x7e]{1,128}\Z")
_log = structlog.get_logger()


class RequestLog:
    """Wraps an ASGI application; a request's id is the caller's own X-Request-Id or a new UUIDv7."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode() if _PRINTABLE.match(given) else _new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        header = (b"x-request-id", request_id.encode())
        status = 0

        async def named(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], header]
            await send(message)

        began = time.perf_counter()
        try:
            await self._app(scope, receive, named)
        finally:
            seconds = time.perf_counter() - began
            # The route's template, not the path: ids would make a counter each.
            route = scope.get("path_template") or "unknown"
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            _counter(method, route, status).inc()
            _seconds(route).observe(seconds)
            _log.info(
                "request",
                request_id=request_id,
                method=method,
                path=scope["path"][:200],
                status=status,
                ms=round(seconds * 1000, 2),
            )


# Bounded by methods, routes and statuses; a look-up of labels costs more than the counting.
@functools.cache
def _counter(method: str, route: str, status: int) -> Counter:
    return REQUESTS.labels(method, route, str(status))


@functools.cache
def _seconds(route: str) -> Histogram:
    return REQUEST_SECONDS.labels(route)


_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


def _new_id() -> str:
    return uuid7(time.time_ns() // 1_000_000, random.getrandbits(32), random.getrandbits(42))
