"""`GET /sandbox/v1/audit`: parse, call the audit, render."""

import asyncio
from typing import Final

from litestar import Router, get
from litestar.response.base import ASGIResponse

from sandbox.audit.service import AuditReport, audit
from sandbox.http.answers import ok
from sandbox.http.guard import HttpRequest, RequestGuard
from sandbox.http.operation import Operation
from sandbox.http.paging import query

_AT_ONCE: Final = 2
"""Audits of this process at a time: each holds a connection, and the pool serves everybody."""

_AUDIT: Final = Operation(
    "Audit the ledger", {200: AuditReport},
    description="Recomputes every invariant from the ledger's entries. Responds with 200 even if checks "
    "fail: see `ok`. The merchant stays usable meanwhile.",
)  # fmt: skip


def audit_router(gate: RequestGuard) -> Router:
    """The route of the audit."""
    turns = asyncio.Semaphore(_AT_ONCE)

    @get("/", operation_id="audit", opt={"operation": _AUDIT})
    async def run_audit(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        async with turns:
            return ok(await audit(caller.merchant_id))

    return Router("/sandbox/v1/audit", route_handlers=[run_audit])
