"""`/sandbox/v1/requests`: parse, read the journal, render."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final, get_args

from sandbox.domain.enumerations import Method
from sandbox.domain.errors import Problem
from sandbox.domain.fields import Uuid
from sandbox.http.journal.journal import Journal, JournalEntry
from sandbox.http.operation import PAGE, get, parameter
from sandbox.http.paging import Page, page, window
from sandbox.http.request import Request

_METHODS: Final = get_args(Method)


class JournalApi:
    """The operations of the journal of API calls."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    @get(
        "/sandbox/v1/requests",
        "List API calls from the journal, newest first",
        {200: list[JournalEntry]},
        takes_turns=True,
        query=(
            *PAGE,
            parameter("method", "Only calls with this method.", type="string", enum=list(_METHODS)),
            parameter("path", "Only calls to this path; `*` matches anything.", type="string", minLength=1, maxLength=200),
            parameter("status", "Only calls with this response status.", type="integer", minimum=100, maximum=599),
            parameter("request_id", "Only calls with this X-Request-Id.", type="string", minLength=1, maxLength=128),
            parameter("fault_id", "Only calls that this fault hit.", type="string", format="uuid"),
            parameter(
                "q", "Only calls whose path, bodies or idempotency key contain this.", type="string", minLength=1, maxLength=200
            ),
        ),
        description="Keeps the newest 1000 calls for a day, and only those with a valid key or, for a bank's callback, a valid "
        "signature. A call appears within a "
        "second. Bodies are cut to 4000 bytes. Keys, secrets and anything that the operation does not declare (other "
        "headers, query parameters and fields) read `[redacted]`. `fault` names the fault that hit the call, if any.",
        psp="requests list --fault {fault_id} --text {q}",
        columns="id at method path status duration_ms request_id",
    )
    async def list_requests(self, request: Request) -> Page:
        query = request.query
        part = window(query)
        found = await self._journal.page(request.merchant_id, part.before, part.limit + 1, lambda entry: _matches(entry, query))
        return page(found, part.limit, [entry.id for entry in found])

    @get("/sandbox/v1/requests/{entry_id}", "Get an API call from the journal", {200: JournalEntry}, psp="requests get")
    async def get_request(self, request: Request, entry_id: Uuid) -> JournalEntry:
        found = await self._journal.get(request.merchant_id, entry_id)
        if found is None:
            raise Problem("NOT_FOUND", "API call not found; the journal keeps the newest 1000 calls for a day.")
        return found


def _matches(entry: JournalEntry, params: Mapping[str, str]) -> bool:
    text = params.get("q", "")
    return (
        entry.method == params.get("method", entry.method)
        and entry.request_id == params.get("request_id", entry.request_id)
        and str(entry.status) == params.get("status", str(entry.status))
        and ("fault_id" not in params or (entry.fault is not None and entry.fault.id == params["fault_id"]))
        and fnmatchcase(entry.path, params.get("path", "*"))
        and (
            text in entry.path
            or text in entry.request_body
            or text in entry.response_body
            or text in (entry.idempotency_key or "")
        )
    )
