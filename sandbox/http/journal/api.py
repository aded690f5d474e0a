"""`/sandbox/v1/requests`: parse, read the journal, render."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final, get_args

import msgspec

from sandbox.domain.enumerations import Method
from sandbox.domain.errors import CODES, Problem
from sandbox.domain.fields import Uuid
from sandbox.domain.ids import MAX_ID
from sandbox.http.journal.journal import ENTRIES_KEPT, Journal, JournalEntry
from sandbox.http.operation import PAGE, get, parameter
from sandbox.http.paging import Page, page, window
from sandbox.http.request import Request

_METHODS: Final = get_args(Method)
_CODE: Final = re.compile(r'"code":"([A-Z_]+)"')
"""The code in a problem's JSON. A quote in a text of the problem is escaped, so no text looks like it."""
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=^/aggregator/v1/users/)[^/]+")
"""One of our ids, or a vendor's id of a user, which can be any text."""
_HARMLESS: Final = ("latency", "slow_after_commit", "truncated_body")
"""Faults that change no status, so an error is the API's own."""


class RefusedRequests(msgspec.Struct):
    """Calls of one operation that got the same error, and what to do about it."""

    code: str | None
    """The problem's code; null if the response was not a problem, or a fault's."""
    status: int
    title: str
    advice: str
    method: str
    path: str
    """With `{id}` in place of each id."""
    fault_kind: str | None
    """The fault that hit these calls, if one did."""
    count: int
    last_at: str
    last_id: str
    """The newest of these calls."""


class RefusedList(msgspec.Struct):
    """The calls that got an error, grouped, the most frequent first."""

    data: list[RefusedRequests]


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
            parameter(
                "path",
                "Only calls to this path; `*` matches anything, `{id}` an id.",
                type="string",
                minLength=1,
                maxLength=200,
            ),
            parameter("code", "Only calls that got this problem code.", type="string", enum=list(CODES)),
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

    @get(
        "/sandbox/v1/requests/refused",
        "Group the API calls that got an error",
        {200: RefusedList},
        takes_turns=True,
        description="Counts the calls in the journal with a status of 400 or more by problem code and operation, each with "
        "what to do about it. Calls that the sandbox made to others, such as webhooks, do not count.",
        psp="requests refused",
        columns="count code method path advice",
    )
    async def list_refused_requests(self, request: Request) -> RefusedList:
        groups: dict[object, RefusedRequests] = {}

        def count(entry: JournalEntry) -> bool:
            if _is_refused(entry):
                _add(groups, entry)
            return False  # keep none: together they can have megabytes

        await self._journal.page(request.merchant_id, MAX_ID, ENTRIES_KEPT, count)
        return RefusedList(sorted(groups.values(), key=lambda group: -group.count))

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
        and ("path" not in params or any(fnmatchcase(path, params["path"]) for path in (entry.path, route_of(entry.path))))
        and ("code" not in params or _code_of(entry) == params["code"])
        and (
            text in entry.path
            or text in entry.request_body
            or text in entry.response_body
            or text in (entry.idempotency_key or "")
        )
    )


def route_of(path: str) -> str:
    """Return a path with `{id}` in place of each id."""
    return _ID.sub("{id}", path)


def _is_refused(entry: JournalEntry) -> bool:
    # A response to HEAD has no body, so it does not tell its code.
    return entry.status >= 400 and entry.path.startswith("/") and entry.method != "HEAD"


def _add(groups: dict[object, RefusedRequests], entry: JournalEntry) -> None:
    code, fault, route = _code_of(entry), _fault_of(entry), route_of(entry.path)
    key = (code, entry.status, entry.method, route, fault)
    if key not in groups:
        title, advice = _advice(code, fault)
        groups[key] = RefusedRequests(code, entry.status, title, advice, entry.method, route, fault, 0, entry.at, entry.id)
    groups[key].count += 1


def _fault_of(entry: JournalEntry) -> str | None:
    """Return the kind of the fault that a call's response is from."""
    return None if entry.fault is None or entry.fault.kind in _HARMLESS else entry.fault.kind


def _code_of(entry: JournalEntry) -> str | None:
    found = _CODE.search(entry.response_body) if entry.status >= 400 and _fault_of(entry) is None else None
    return found[1] if found is not None and found[1] in CODES else None


def _advice(code: str | None, fault: str | None) -> tuple[str, str]:
    """Return an error's title, and what to do about it."""
    if fault is not None:
        return f"The fault {fault}", "You asked for this error. Delete the fault, or let your program handle it."
    if code is None:
        return "An error without a problem code", "Open the newest call to see its response."
    return CODES[code].title, CODES[code].resolution
