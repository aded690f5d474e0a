"""The journal of API calls: search it, and see what a call caused."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, get_args
from urllib.parse import urlencode

from sandbox.domain.enumerations import Method
from sandbox.domain.errors import CODES
from sandbox.http.responses import Response
from sandbox.server.console.calls import Refused
from sandbox.server.console.data_table import Column, Row, Table
from sandbox.server.console.replay import Mention, body_of_entry, mentions, problem_of_entry, query_of_entry, replay
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()
MAX_PAYOUTS: Final = 10
"""Payouts whose timelines are read to find what a call caused."""
CALLS: Final = (
    Column("at", "Host's time", "journal_time"),
    Column("status", "Status", "status", link="/requests/{id}"),
    Column("method", "Method", "code"),
    Column("path", "Path", link="/requests/{id}"),
    Column("duration_ms", "ms", "number"),
    Column("replayed", "Replayed", value=lambda row: "replayed" if row["replayed"] else None),
    Column("fault.kind", "Fault", "code", link="/world/faults/{fault.id}"),
    Column("idempotency_key", "Idempotency key", "id"),
    Column("id", "Id", is_csv_only=True),
)
CAUSED: Final = (
    Column("at", "Time", "time"),
    Column("payout_id", "Payout", "id", link="/payouts/{payout_id}"),
    Column("from", "From", "status"),
    Column("to", "To", "status"),
    Column("cause", "By"),
    Column("scenario", "Scenario"),
    Column("event_id", "Event", "id", link="/webhooks/events/{event_id}"),
)
REFUSED: Final = (
    Column("count", "Calls", "number"),
    Column("code", "Problem code", "code", link="/requests/{last_id}"),
    Column("status", "Status", "status"),
    Column("path", "Where", "code", value=lambda row: f"{row['method']} {row['path']}"),
    Column("advice", "What to do"),
    Column("last_at", "Last, host's time", "journal_time", link="/requests/{last_id}"),
)
_CAPTION: Final = "API calls, newest first"
_FILTERED: Final = "No call in the journal matches. It keeps the newest 1000 calls for a day."
_EMPTY: Final = "No API call yet. Each call with a valid key appears here: try the command below."


@pages.page("/requests")
async def requests(view: View) -> Response:
    """List API calls, newest first, with filters in the URL."""
    query = view.given("q", "method", "path", "status", "code", "request_id")
    problem: dict[str, Any] | None = None
    try:
        table = await view.table(
            "requests", _CAPTION, CALLS, "list_requests", query=query, empty=_FILTERED if query else _EMPTY
        )  # fmt: skip
    except Refused as error:
        # An incomplete status must not lose the other filters: show the page with the form.
        if error.status != 400:
            raise
        problem, table = error.problem, Table("requests", _CAPTION, CALLS, [], "Correct the filters to see calls.")
    return await view.render("requests.html", tables=[table], problem=problem, methods=get_args(Method), codes=list(CODES))


@pages.page("/requests/refused")
async def refused(view: View) -> Response:
    """Group the calls that got an error: which, where, how often, and what to do about it."""
    found = (await view.call("list_refused_requests"))["data"]
    return await view.render(
        "refused.html", tables=[Table("refused", "Refused calls, the most frequent first", REFUSED, found)], pages=_calls_of
    )


def _calls_of(group: Row) -> str:
    """Return the page that lists the calls of a group with a code."""
    query = {name: group[name] for name in ("method", "path", "status", "code") if group[name] is not None}
    return f"/requests?{urlencode(query)}"


@pages.page("/requests/{entry_id}")
async def request(view: View) -> Response:
    """Show one call: what was sent and returned, what it caused, and how to send it again."""
    entry = await view.call("get_request", path={"entry_id": view.path_parameters["entry_id"]})
    named = mentions(entry)
    payouts = [mention.value for mention in named if mention.name == "payout_id"]
    caused = await _changes(view, payouts[:MAX_PAYOUTS], entry["request_id"])
    found = view.kit.calls.find(entry["method"], entry["path"])
    is_outbound = "://" in entry["path"]
    psp = ""
    if found is not None:
        operation, path = found
        psp = view.kit.commands.of(
            operation.id, path, query_of_entry(entry), body_of_entry(entry), merchant_id=view.merchant_of_commands
        ).psp
    return await view.render(
        "request.html",
        tables=[
            Table(
                "caused", "Payout changes it caused", CAUSED, caused,
                "It changed no payout." if payouts else "It names no payout.",
            )
        ],
        entry=entry,
        problem=problem_of_entry(entry),
        summary=found[0].summary if found else "",
        others=_others(named, caused),
        uncounted=len(payouts) - MAX_PAYOUTS,
        replay=None if is_outbound else replay(entry, view.kit.public_url),
        psp=psp,
    )  # fmt: skip


async def _changes(view: View, payouts: Sequence[str], request_id: str) -> list[dict[str, Any]]:
    """Return the changes in these payouts' timelines that have this request id, oldest first."""
    found = await asyncio.gather(
        *(view.call_if_found("get_payout_timeline", path={"payout_id": payout_id}) for payout_id in payouts)
    )
    changes = [
        {**change, "payout_id": payout_id}
        for payout_id, timeline in zip(payouts, found, strict=True)
        for change in (timeline["data"] if timeline else ())
        if change["request_id"] == request_id
    ]
    return sorted(changes, key=lambda change: (change["at"], change["event_id"]))


def _others(named: Sequence[Mention], caused: Sequence[dict[str, Any]]) -> list[Mention]:
    """Return the ids that the table of changes does not show."""
    shown = {change["payout_id"] for change in caused}
    return [mention for mention in named if mention.value not in shown]
