"""The journal of API calls."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from collections.abc import AsyncIterator
from typing import Literal

from psp_sandbox.client._callers import AsyncCaller
from psp_sandbox.client._calls import Call, query, segment
from psp_sandbox.client.models.requests import JournalEntry


class AsyncRequestsApi:
    """The journal of API calls."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    def list(
        self,
        *,
        limit: int | None = None,
        method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] | None = None,
        path: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        fault_id: str | None = None,
        q: str | None = None,
    ) -> AsyncIterator[JournalEntry]:
        """List API calls from the journal, newest first.

        Keeps the newest 1000 calls for a day, and only those with a valid key or, for a bank's callback, a valid
        signature. A call appears within a second. Bodies are cut to 4000 bytes. Keys, secrets and anything that the
        operation does not declare (other headers, query parameters and fields) read `[redacted]`. `fault` names the
        fault that hit the call, if any.

        Requests each page when it is needed; `limit` is the number of items per page.

        method: Only calls with this method.
        path: Only calls to this path; `*` matches anything.
        status: Only calls with this response status.
        request_id: Only calls with this X-Request-Id.
        fault_id: Only calls that this fault hit.
        q: Only calls whose path or bodies contain this.
        """
        return self._caller.pages(
            Call(
                JournalEntry,
                "GET",
                "/sandbox/v1/requests",
                query=query(
                    {
                        "limit": limit,
                        "method": method,
                        "path": path,
                        "status": status,
                        "request_id": request_id,
                        "fault_id": fault_id,
                        "q": q,
                    }
                ),
            )
        )

    async def get(self, entry_id: str) -> JournalEntry:
        """Get an API call from the journal.

        Raises NotFound.
        """
        return await self._caller.send(Call(JournalEntry, "GET", f"/sandbox/v1/requests/{segment(entry_id)}"))
