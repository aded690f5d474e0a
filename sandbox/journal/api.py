"""`/sandbox/v1/requests`: parse, read the journal, render."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final, get_args

from litestar import Router, get
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from sandbox.domain.choices import Method
from sandbox.domain.errors import Problem
from sandbox.domain.ids import is_uuid
from sandbox.http.answers import ok
from sandbox.http.guard import HttpRequest, RequestGuard
from sandbox.http.operation import CURSOR, LIMIT, Operation, parameter
from sandbox.http.paging import choice, page, query, window
from sandbox.journal.journal import Journal, JournalEntry

_METHODS: Final = get_args(Method)
_FILTERS: Final = ("limit", "cursor", "method", "path", "status", "request_id", "q")
_LIST: Final = Operation(
    "List API calls from the journal, newest first", {200: list[JournalEntry]},
    query=(
        LIMIT, CURSOR,
        parameter("method", "Only calls with this method.", type="string", enum=list(_METHODS)),
        parameter("path", "Only calls to this path; `*` matches anything.", type="string", minLength=1, maxLength=200),
        parameter("status", "Only calls with this response status.", type="integer", minimum=100, maximum=599),
        parameter("request_id", "Only calls with this X-Request-Id.", type="string", minLength=1, maxLength=128),
        parameter("q", "Only calls whose path or bodies contain this.", type="string", minLength=1, maxLength=200),
    ),
    description="Keeps the newest 1000 calls for a day, and only those with a valid key. A call appears within a "
    "second. Bodies are cut to 4000 bytes. Keys, secrets and anything that the operation does not declare (other "
    "headers, query parameters and fields) read `[redacted]`. A fault that hit is named.",
)  # fmt: skip


def journal_router(gate: RequestGuard, journal: Journal) -> Router:
    """The routes of the journal."""

    @get("/", operation_id="list_requests", opt={"operation": _LIST})
    async def list_requests(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        params = query(request, _FILTERS)
        choice(params, "method", _METHODS)
        part = window(params)
        found = await journal.page(caller.merchant_id, part.before, part.limit + 1, lambda entry: _wanted(entry, params))
        return ok(page(found, part.limit, [entry.id for entry in found]))

    @get(
        "/{entry_id:str}", operation_id="get_request",
        opt={"operation": Operation("Get an API call from the journal", {200: JournalEntry}, errors=("NOT_FOUND",))},
    )  # fmt: skip
    async def get_request(request: HttpRequest, entry_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        found = await journal.get(caller.merchant_id, entry_id) if is_uuid(entry_id) else None
        if found is None:
            raise Problem("NOT_FOUND", "This call is not in the journal, or no longer.")
        return ok(found)

    return Router("/sandbox/v1/requests", route_handlers=[list_requests, get_request])


def _wanted(entry: JournalEntry, params: Mapping[str, str]) -> bool:
    text = params.get("q", "")
    return (
        entry.method == params.get("method", entry.method)
        and entry.request_id == params.get("request_id", entry.request_id)
        and str(entry.status) == params.get("status", str(entry.status))
        and fnmatchcase(entry.path, params.get("path", "*"))
        and (text in entry.path or text in entry.request_body or text in entry.response_body)
    )
