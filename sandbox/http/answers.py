"""Turn results into responses, and every error into its problem."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec
import structlog
from litestar import Response
from litestar.exceptions import HTTPException, InternalServerException, MethodNotAllowedException
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from sandbox.db.engine import CONNECTION_ERRORS, away
from sandbox.domain.errors import MEDIA_TYPE, Problem
from sandbox.domain.unit import CommandResult
from sandbox.http.guard import HttpRequest, request_id

JSON: Final = "application/json"
_encode: Final = msgspec.json.Encoder().encode
_log = structlog.get_logger()

_BY_STATUS: Final = {
    400: "VALIDATION_ERROR",
    401: "INVALID_API_KEY",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    406: "NOT_ACCEPTABLE",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    429: "RATE_LIMITED",
    503: "UNAVAILABLE",
}


class _Sent(ASGIResponse):
    """An answer that is bytes already. Litestar's own looks at each header once more: a twentieth of a create."""

    def __init__(self, status: int, body: bytes, media_type: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        self._status = status
        self._body = body
        self._headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        if status != 204:
            self._headers += [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})


def ok(value: Any, status: int = 200, location: str | None = None) -> ASGIResponse:
    """A value as JSON."""
    return _Sent(status, _encode(value), JSON, (("location", location),) if location else ())


def empty() -> ASGIResponse:
    """204."""
    return ASGIResponse(status_code=204)


def answered(answer: CommandResult) -> ASGIResponse:
    """A command's answer, the stored bytes where it is a replay."""
    headers = list(answer.problem_headers)
    if answer.location is not None:
        headers.append(("location", answer.location))
    if answer.replayed:
        headers.append(("idempotent-replayed", "true"))
    return _Sent(answer.status, answer.body, JSON if answer.status < 400 else MEDIA_TYPE, headers)


class ProblemHandler:
    """The one exception handler: RFC 9457 for whatever was raised; a 500 tells its request id and nothing else."""

    def __init__(self, public_url: str) -> None:
        self._public_url = public_url

    def __call__(self, request: HttpRequest, error: Exception) -> Response[bytes]:
        """The response for an error; also for OPTIONS, which no route takes."""
        problem = self._problem(request, error)
        if problem.code == "METHOD_NOT_ALLOWED" and request.scope["state"]["method"] == "OPTIONS":
            return Response(b"", status_code=204, headers=dict(problem.headers))
        return Response(
            problem.body(self._public_url, request.scope["path"], request_id(request)),
            status_code=problem.status,
            media_type=MEDIA_TYPE,
            headers=dict(problem.headers),
        )

    def _problem(self, request: HttpRequest, error: Exception) -> Problem:
        if isinstance(error, Problem):
            _log_cause(request, error.code, error.__cause__)
            return error
        if isinstance(error, CONNECTION_ERRORS):
            _log_cause(request, "UNAVAILABLE", error)
            return away(error)
        if isinstance(error, MethodNotAllowedException):
            allowed = {name.strip() for name in (error.headers or {}).get("allow", "").split(",")} - {""}
            if "GET" in allowed:
                allowed.add("HEAD")
            return Problem("METHOD_NOT_ALLOWED", headers={"Allow": ", ".join(sorted(allowed))})
        if isinstance(error, InternalServerException) and "disconnected" in error.detail:
            # Nobody is there to read it; and it is no defect of ours.
            return Problem(
                "VALIDATION_ERROR", "The client disconnected before the request was complete.", errors=[("body", "is cut off")]
            )
        if isinstance(error, HTTPException) and error.status_code in _BY_STATUS:
            code = _BY_STATUS[error.status_code]
            detail = error.detail if error.status_code == 400 else ""
            if error.status_code == 413:
                detail = _too_large(request)
            errors = [("request", detail)] if code == "VALIDATION_ERROR" else []
            return Problem(code, detail, errors=errors)
        _log.error("request_failed", request_id=request_id(request), exc_info=error)
        return Problem("INTERNAL_ERROR")


def _too_large(request: HttpRequest) -> str:
    handler = request.scope["route_handler"]
    most = handler.resolve_request_max_body_size() if isinstance(handler, HTTPRouteHandler) else None
    return f"The body may have at most {most} bytes. Send less in one request, such as fewer items of a batch."


def _log_cause(request: HttpRequest, code: str, cause: BaseException | None) -> None:
    """Say in the log what is behind a 503: the answer names no more than the part that is missing."""
    if code == "UNAVAILABLE" and cause is not None:
        _log.warning("unavailable", request_id=request_id(request), error=type(cause).__name__, cause=str(cause)[:300])
