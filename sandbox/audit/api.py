"""`GET /sandbox/v1/audit`: parse, call the audit, render."""

import asyncio
from typing import Final

from sandbox.audit.service import AuditReport
from sandbox.audit.service import audit as audit_merchant
from sandbox.http.operation import get
from sandbox.http.request import Request

_MAX_CONCURRENT_AUDITS: Final = 2
"""Maximum concurrent audits in this process. Each holds a connection of the pool that all requests share."""


class AuditApi:
    """The operation that audits a merchant."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_MAX_CONCURRENT_AUDITS)

    @get(
        "/sandbox/v1/audit",
        "Audit the ledger",
        {200: AuditReport},
        description="Recomputes every invariant from the ledger's entries. Responds with 200 even if checks "
        "fail: see `ok`. The merchant stays usable during the audit.",
    )
    async def audit(self, request: Request) -> AuditReport:
        async with self._slots:
            return await audit_merchant(request.merchant_id)
