"""`GET /sandbox/v1/audit`: parse, call the audit, render."""

import asyncio
from typing import Final

from sandbox.audit.service import AuditReport
from sandbox.audit.service import audit as audit_merchant
from sandbox.http.operation import get
from sandbox.http.request import Request

_AT_ONCE: Final = 2
"""Audits of this process at a time: each holds a connection, and the pool serves everybody."""


class AuditApi:
    """The operation that audits a merchant."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_AT_ONCE)

    @get(
        "/sandbox/v1/audit",
        "Audit the ledger",
        {200: AuditReport},
        description="Recomputes every invariant from the ledger's entries. Responds with 200 even if checks "
        "fail: see `ok`. The merchant stays usable meanwhile.",
    )
    async def audit(self, request: Request) -> AuditReport:
        async with self._turns:
            return await audit_merchant(request.merchant_id)
