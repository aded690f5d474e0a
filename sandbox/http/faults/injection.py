"""Inject faults into API requests: delay the response, replace it with an error, truncate it or drop it.

A fault takes effect either before the request is executed, in its place, or on the response, after the commit. So no fault can
corrupt the ledger.
"""

import asyncio
import re
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final

from litestar.types import Receive, Send

from sandbox.domain.errors import CODES, Problem
from sandbox.http.fault import FAULT_PATH_PREFIXES, Fault, InjectedFault
from sandbox.http.faults.hits import first_hit
from sandbox.http.request import Request

_REFERENCE: Final = re.compile(rb'"(?:merchant_reference|request_id)"\s*:\s*"([^"]*)')
_AFTER_COMMIT: Final = frozenset({"connection_reset", "truncated_body", "slow_after_commit"})
_CODES: Final = {kind.status: code for code, kind in reversed(CODES.items())} | {
    402: "INSUFFICIENT_BALANCE",
    407: "MISSING_API_KEY",
    410: "NOT_FOUND",
    412: "INVALID_STATE",
    414: "PAYLOAD_TOO_LARGE",
    423: "IDEMPOTENCY_KEY_IN_FLIGHT",
    425: "IDEMPOTENCY_KEY_IN_FLIGHT",
    428: "MISSING_IDEMPOTENCY_KEY",
    431: "PAYLOAD_TOO_LARGE",
    451: "FORBIDDEN",
    500: "INTERNAL_ERROR",
}
"""Status → the first code with that status, or the nearest code. Any other status gets UNAVAILABLE, which tells the client that
the request was not executed and can be retried.
"""


async def inject_before(request: Request) -> None:
    """Apply the first fault that hits a request, and store it in `request.fault` for the outer middleware.

    Raises the problem that a fault responds with.
    """
    path, faults = request.path, request.caller.faults
    if not path.startswith(FAULT_PATH_PREFIXES) and not request.operation.dialect:
        return
    raw = await request.read() if any("reference" in fault.match for fault in faults) else b""

    def matches(fault: Fault) -> bool:
        pattern = fault.match.get("reference")
        is_match = fault.matches_request(request.method, path, request.caller.key_id)
        return is_match and (pattern is None or _has_reference(raw, pattern))

    hit = await first_hit(request.merchant_id, faults, matches)
    if hit is None:
        return
    request.fault = hit
    if hit.fault.kind == "latency":
        await asyncio.sleep(hit.fault.milliseconds(hit.counter) / 1000)
    elif not _is_after_effect(hit.fault):
        raise _problem(hit)  # `inject_response` resets the connection instead of sending it, if that is the fault


def _is_after_effect(fault: Fault) -> bool:
    by_kind = "after_effect" if fault.kind in _AFTER_COMMIT else "before_effect"
    return fault.parameters.get("when", by_kind) == "after_effect"


def _has_reference(body: bytes, pattern: str) -> bool:
    parts = pattern.encode().split(b"*")
    return any(_contains_in_order(reference, parts) for reference in _REFERENCE.findall(body))


def _contains_in_order(text: bytes, parts: Sequence[bytes]) -> bool:
    """Return whether the text contains the parts one after the other.

    Taking the earliest match of each part finds a match if there is one.
    """
    position = 0
    for part in parts:
        position = text.find(part, position)
        if position < 0:
            return False
        position += len(part)
    return True


def _problem(hit: InjectedFault) -> Problem:
    fault = hit.fault
    status = int(fault.parameters.get("status", 429))
    code = _CODES.get(status, "UNAVAILABLE")
    retry_after = int(fault.parameters.get("retry_after", 1))
    headers = {"Retry-After": str(retry_after)} if code in ("RATE_LIMITED", "UNAVAILABLE") else {}
    detail = f"Fault {fault.id} ({fault.kind}) responded instead of the API; the request was not executed."
    errors = [("body", f"was rejected by fault {fault.id}")] if code == "VALIDATION_ERROR" else []
    problem = Problem(code, detail, errors=errors, headers=headers)
    problem.status = status
    return problem


async def inject_response(hit: InjectedFault, message: Any, receive: Receive, send: Send) -> None:
    """Send one ASGI message of a response, delayed or damaged by the fault. Other kinds of faults do not change it."""
    kind, is_start = hit.fault.kind, message["type"] == "http.response.start"
    transport = getattr(getattr(send, "__self__", None), "transport", None)  # uvicorn's: ASGI cannot break a connection
    if kind == "slow_after_commit" and is_start:
        await asyncio.sleep(hit.fault.milliseconds(hit.counter) / 1000)
    if kind == "connection_reset" and transport is not None:
        if not is_start:
            # With a linger time of 0, the peer sees a reset instead of an orderly close.
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
            await _wait_for_disconnect(receive)
        return
    body = message.get("body", b"")
    if kind == "error" and _is_after_effect(hit.fault):
        if is_start or not message.get("more_body"):
            await send(_as_gateway(message, int(hit.fault.parameters["status"])))
        return
    if kind == "truncated_body" and body and transport is not None:
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        transport.close()
        await _wait_for_disconnect(receive)
        return
    await send(message)


def _as_gateway(message: Any, status: int) -> Any:
    """Return what a gateway sends in place of the start or the end of a response."""
    page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>\n".encode()
    if message["type"] != "http.response.start":
        return {**message, "body": page}
    headers = [(b"content-type", b"text/html"), (b"content-length", b"%d" % len(page))]
    kept = [header for header in message["headers"] if header[0] == b"x-request-id"]
    return {**message, "status": status, "headers": headers + kept}


async def _wait_for_disconnect(receive: Receive) -> None:
    """Wait until the server has noticed the disconnect. Otherwise it would log the incomplete response as an error."""
    while (await receive())["type"] != "http.disconnect":
        pass
