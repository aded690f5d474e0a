"""Convert handlers' return values into responses, and exceptions into problems."""

from collections.abc import Iterable
from typing import Any, Final, Protocol

import litestar
import msgspec
import structlog
from litestar.exceptions import HTTPException, MethodNotAllowedException
from litestar.types import ASGIApp, Receive, Scope, Send

from sandbox.domain.errors import MEDIA_TYPE, Problem
from sandbox.domain.unit import CommandResult
from sandbox.http.operation import JSON
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, database_unavailable

_encode: Final = msgspec.json.Encoder().encode
_log = structlog.get_logger()


class Connection(Protocol):
    """A request as Litestar passes it to an exception handler."""

    scope: Any


class Response:
    """A response with an encoded body."""

    __slots__ = ("_body", "_headers", "_status")

    def __init__(self, status: int, body: bytes = b"", media_type: str = JSON, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Header names may be in any case. Text bodies are UTF-8. A 204 or 304 has no Content-Type and no Content-Length."""
        self._status = status
        self._body = body
        self._headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        if status not in (204, 304):
            charset = "; charset=utf-8" if media_type.startswith("text/") else ""
            self._headers.append((b"content-type", (media_type + charset).encode()))
            self._headers.append((b"content-length", b"%d" % len(body)))

    def add_header(self, name: str, value: str) -> None:
        """Add a header, such as Set-Cookie."""
        self._headers.append((name.lower().encode(), value.encode("latin-1")))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})


def response_of(returned: Any, status: int) -> ASGIApp:
    """Return the response for a handler's return value. Plain values are sent as JSON with `status`."""
    if isinstance(returned, CommandResult):
        return _command_response(returned)
    if callable(returned):
        app: ASGIApp = returned
        return app
    return Response(status, _encode(returned))


def _command_response(result: CommandResult) -> Response:
    """Return a command's response; for a replay it has the stored bytes."""
    headers = list(result.problem_headers)
    if result.location is not None:
        headers.append(("location", result.location))
    if result.replayed:
        headers.append(("idempotent-replayed", "true"))
    return Response(result.status, result.body, JSON if result.status < 400 else MEDIA_TYPE, headers)


class ProblemHandler:
    """Exception handler that converts all exceptions to RFC 9457 problems. A 500 contains the request id but no details."""

    def __init__(self, public_url: str) -> None:
        self._public_url = public_url

    def __call__(self, connection: Connection, error: Exception) -> litestar.Response[bytes]:
        """Return the response for an exception; also for OPTIONS, which has no routes."""
        scope = connection.scope
        request_id = scope["state"]["request_id"]
        problem = _problem(error, request_id)
        if problem.code == "METHOD_NOT_ALLOWED" and scope["state"]["method"] == "OPTIONS":
            return litestar.Response(b"", status_code=204, headers=dict(problem.headers))
        return litestar.Response(
            problem.body(self._public_url, scope["path"], request_id),
            status_code=problem.status,
            media_type=MEDIA_TYPE,
            headers=dict(problem.headers),
        )


def _problem(error: Exception, request_id: str) -> Problem:
    if isinstance(error, Problem):
        _log_cause(request_id, error.code, error.__cause__)
        return error
    if isinstance(error, CONNECTION_ERRORS):
        _log_cause(request_id, "UNAVAILABLE", error)
        return database_unavailable(error)
    # The remaining errors come from the router: an invalid Host, an unknown path or an unsupported method.
    if isinstance(error, MethodNotAllowedException):
        allowed = {name.strip() for name in (error.headers or {}).get("allow", "").split(",")} - {""}
        if "GET" in allowed:
            allowed.add("HEAD")
        return Problem("METHOD_NOT_ALLOWED", headers={"Allow": ", ".join(sorted(allowed))})
    if isinstance(error, HTTPException) and error.status_code == 404:
        return Problem("NOT_FOUND")
    if isinstance(error, HTTPException) and error.status_code == 400:
        return Problem("VALIDATION_ERROR", error.detail, errors=[("request", error.detail)])
    _log.error("request_failed", request_id=request_id, exc_info=error)
    return Problem("INTERNAL_ERROR")


def _log_cause(request_id: str, code: str, cause: BaseException | None) -> None:
    """Log the cause of a 503; its response names only the unavailable part."""
    if code == "UNAVAILABLE" and cause is not None:
        _log.warning("unavailable", request_id=request_id, error=type(cause).__name__, cause=str(cause)[:300])
