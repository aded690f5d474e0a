"""`GET /sandbox/v1/audit`: parse, call the audit, render."""

from sandbox.http.operation import get
from sandbox.http.request import Request
from sandbox.worlds.audit.service import AuditReport
from sandbox.worlds.audit.service import audit as audit_merchant


class AuditApi:
    """The operation that audits a merchant."""

    @get(
        "/sandbox/v1/audit",
        "Audit the ledger",
        {200: AuditReport},
        takes_turns=True,
        description="Recomputes every invariant from the ledger's entries. Responds with 200 even if checks "
        "fail: see `ok`. The merchant stays usable during the audit.",
        psp="audit",
    )
    async def audit(self, request: Request) -> AuditReport:
        return await audit_merchant(request.merchant_id)
