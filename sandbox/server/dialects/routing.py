"""Let requests to a dialect's paths see only the dialect: its key header, its errors, its headers.

Every refusal is rendered here, also those of the router, of other middleware and of injected faults, so none can be forgotten.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from sandbox.domain.errors import MEDIA_TYPE, ProblemBody
from sandbox.server.dialects.dialect import Dialect, Refusal

_PASSED_ON: Final = frozenset({b"content-type", b"content-length", b"retry-after"})
"""Headers of responses. All others are the sandbox's own."""
_REPLACED: Final = frozenset({b"x-api-key", b"authorization", b"idempotency-key", b"x-idempotency-key"})
"""Native headers of requests, which mean nothing in a dialect."""
_decode: Final = msgspec.json.Decoder(ProblemBody).decode
_PROBLEM: Final = (b"content-type", MEDIA_TYPE.encode())


class DialectRouting:
    """Wraps an ASGI application that serves the operations of the dialects, among others."""

    def __init__(self, app: ASGIApp, dialects: Mapping[str, Dialect]) -> None:
        self._app = app
        self._by_prefix = {dialect.prefix: dialect for dialect in dialects.values()}
        self._prefixes = tuple(self._by_prefix)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        dialect = self._dialect_at(scope["path"]) if scope["type"] == ScopeType.HTTP else None
        if dialect is None:
            await self._app(scope, receive, send)
            return
        header = dialect.key_header.lower().encode()
        keys = [(b"x-api-key", value) for name, value in scope["headers"] if name == header]
        scope["headers"] = [*(pair for pair in scope["headers"] if pair[0] not in _REPLACED and pair[0] != header), *keys]
        await self._app(scope, receive, _Translator(dialect, send))

    def _dialect_at(self, path: str) -> Dialect | None:
        if not path.startswith(self._prefixes):
            return self._by_prefix.get(f"{path}/")  # a base URL is written without the last slash
        return next(dialect for prefix, dialect in self._by_prefix.items() if path.startswith(prefix))


class _Translator:
    """Passes a response on, or collects a problem and sends what the dialect makes of it."""

    def __init__(self, dialect: Dialect, send: Send) -> None:
        self._dialect = dialect
        self._send = send
        self._problem: list[bytes] | None = None
        self._start: Any = None

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            if _PROBLEM in message["headers"]:
                self._problem, self._start = [], message
                return
            message["headers"] = _shown(message["headers"])
        elif self._problem is not None:
            self._problem.append(message.get("body", b""))
            if message.get("more_body", False):
                return
            body = await self._send_refusal(b"".join(self._problem))
            message = {"type": "http.response.body", "body": body, "more_body": False}
        await self._send(message)

    async def _send_refusal(self, body: bytes) -> bytes:
        problem = _decode(body)
        errors = [(error.field, error.message) for error in problem.errors or ()]
        status, rendered = self._dialect.refuse(Refusal(problem.status, problem.code, problem.detail, errors))
        headers = [pair for pair in _shown(self._start["headers"]) if pair[0] == b"retry-after"]
        headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(rendered))]
        self._start |= {"status": status, "headers": headers}
        await self._send(self._start)
        return rendered


def _shown(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [pair for pair in headers if pair[0].lower() in _PASSED_ON]
