"""Faults of the API: an answer that is late, refused, cut short or never comes.

What answers in place of the request does so before anything is executed; what harms the answer does so after the
commit. So no fault touches the ledger's truth.
"""

import asyncio
import re
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final

from litestar.types import Receive, Send

from sandbox.db.engine import db_errors_as_503
from sandbox.domain.errors import CODES, Problem
from sandbox.domain.fault import FAULTED, Fault, Hit
from sandbox.faults.store import first_hit
from sandbox.http.request import Request

_REFERENCE: Final = re.compile(rb'"merchant_reference"\s*:\s*"([^"]*)')
_AFTERWARDS: Final = frozenset({"connection_reset", "truncated_body", "slow_after_commit"})
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
"""Status → the first code that has it, or the one that comes nearest. Any other status says UNAVAILABLE, which is what a
fault is to a client: the request was not served, nothing was done, and it may come again.
"""


async def inject_before(request: Request) -> None:
    """Let the first fault hit that a request meets; it is noted in the request for what stands further out.

    Raises the problem that a fault answers with.
    """
    path, faults = request.path, request.caller.faults
    if not path.startswith(FAULTED):
        return
    raw = await request.read() if any("reference" in fault.match for fault in faults) else b""

    def meets(fault: Fault) -> bool:
        part = fault.match.get("reference")
        return fault.matches_request(request.method, path) and (part is None or _names(raw, part))

    async with db_errors_as_503():
        hit = await first_hit(request.merchant_id, faults, meets)
    if hit is None:
        return
    request.fault = hit
    if hit.fault.kind == "latency":
        await asyncio.sleep(hit.fault.milliseconds(hit.counter) / 1000)
    elif hit.fault.kind not in _AFTERWARDS:
        raise _answer(hit)


def _names(body: bytes, part: str) -> bool:
    pieces = part.encode().split(b"*")
    return any(_holds(reference, pieces) for reference in _REFERENCE.findall(body))


def _holds(text: bytes, pieces: Sequence[bytes]) -> bool:
    """Whether the pieces are in the text, one after the other; in one pass, whatever they are."""
    at = 0
    for piece in pieces:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True


def _answer(hit: Hit) -> Problem:
    fault = hit.fault
    status = int(fault.parameters.get("status", 429))
    code = _CODES.get(status, "UNAVAILABLE")
    after = int(fault.parameters.get("retry_after", 1))
    headers = {"Retry-After": str(after)} if code in ("RATE_LIMITED", "UNAVAILABLE") else {}
    told = f"Fault {fault.id} ({fault.kind}) answered instead of the API; nothing was done."
    errors = [("body", f"was refused by fault {fault.id}")] if code == "VALIDATION_ERROR" else []
    problem = Problem(code, told, errors=errors, headers=headers)
    problem.status = status
    return problem


async def inject_response(hit: Hit, message: Any, receive: Receive, send: Send) -> None:
    """Send one message of an answer as the fault has it. Those that a fault has nothing to do with go as they are."""
    kind, is_start = hit.fault.kind, message["type"] == "http.response.start"
    transport = getattr(getattr(send, "__self__", None), "transport", None)  # uvicorn's: ASGI itself cannot break off
    if kind == "slow_after_commit" and is_start:
        await asyncio.sleep(hit.fault.milliseconds(hit.counter) / 1000)
    if kind == "connection_reset" and transport is not None:
        if not is_start:
            # Closed without lingering, so that the peer sees a reset and not an end.
            connected = transport.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
            await _gone(receive)
        return
    body = message.get("body", b"")
    if kind == "truncated_body" and body and transport is not None:
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        transport.close()
        await _gone(receive)
        return
    await send(message)


async def _gone(receive: Receive) -> None:
    """Wait until the server has noticed, so that it does not take the broken answer for a defect."""
    while (await receive())["type"] != "http.disconnect":
        pass
