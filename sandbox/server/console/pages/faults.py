"""Faults: the list with hits, one fault with what it hit, and a new one."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, get_args

from sandbox.domain.clock import parse
from sandbox.domain.enumerations import EventType, Method
from sandbox.http.responses import Response
from sandbox.server.console.data_table import Column, Row
from sandbox.server.console.pages.fault_kinds import EXAMPLES, KINDS, find_kind
from sandbox.server.console.routing import Pages
from sandbox.server.console.view import View

pages = Pages()
_PATTERNS: Final = ("payout.*", *get_args(EventType))


def _title(row: Row) -> str:
    found = find_kind(row["kind"], row["target"])
    return row["kind"] if found is None else found.title


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def state(fault: Mapping[str, Any], now: str) -> str:
    """Return in words whether a fault can hit at a time of the merchant's clock, and if not, why."""
    if fault["remaining"] == 0:
        return "used up"
    if fault["expires_at"] and parse(fault["expires_at"]) <= parse(now):
        return "expired"
    spared = fault["skip"] - fault["matches"]
    return "active" if spared <= 0 else f"waiting for {spared} {'match' if spared == 1 else 'matches'}"


COLUMNS: Final = (
    Column("kind", "Fault", link="/world/faults/{id}", value=_title),
    Column("state", "State", "status"),
    Column("target", "Breaks", value=lambda row: "API" if row["target"] == "api" else "webhooks"),
    Column("match", "Which calls", value=lambda row: _pairs(row["match"]) or "all"),
    Column("parameters", "Settings", value=lambda row: _pairs(row["parameters"])),
    Column("probability", "Probability", "number"),
    Column("hits", "Calls hit", "number"),
    Column("remaining", "Hits left", "number", value=lambda row: "no limit" if row["remaining"] is None else row["remaining"]),
    Column("expires_at", "Ends at", "time"),
)
HITS: Final = (
    Column("at", "Host's time", "journal_time"),
    Column("method", "Method", "code"),
    Column("path", "Path or URL"),
    Column("status", "Status", "number", value=lambda row: row["status"] or "none"),
    Column("duration_ms", "Milliseconds", "number"),
    Column("event_id", "Event", "id", link="/webhooks/events/{event_id}"),
    Column("id", "Request", "id", link="/requests/{id}"),
)


@pages.page("/world/faults")
async def faults(view: View) -> Response:
    """List faults, newest first."""
    empty = "No fault: everything works. Add one, and see how your integration copes with it."
    clock = await view.clock()
    table = await view.table(
        "faults", "Faults, newest first", COLUMNS, "list_faults", empty=empty,
        prepare=lambda row: {**row, "state": state(row, clock["now"])},
    )  # fmt: skip
    return await view.render("faults.html", tables=[table])


@pages.page("/world/faults/new")
async def new_fault(view: View) -> Response:
    """Offer the kinds of faults and examples or, if the query names a kind, its form. Other parameters fill in the form."""
    kind = find_kind(view.query.get("kind", ""), view.query.get("target", ""))
    endpoints: list[tuple[str, str]] = []
    if kind is not None and kind.target == "webhooks":
        found = await view.call_if_found("list_webhook_endpoints", query={"limit": "100"}, shown=False)
        endpoints = [(endpoint["id"], endpoint["url"]) for endpoint in (found or {"data": []})["data"]]
    return await view.render(
        "new_fault.html",
        kind=kind,
        kinds=KINDS,
        examples=EXAMPLES,
        methods=get_args(Method),
        patterns=_PATTERNS,
        endpoints=endpoints,
    )


@pages.page("/world/faults/{fault_id}")
async def fault(view: View) -> Response:
    """Show a fault and the calls that it hit."""
    fault_id = view.path_parameters["fault_id"]
    found, clock = await asyncio.gather(view.call("get_fault", path={"fault_id": fault_id}), view.clock())
    hits = await view.table(
        "hits",
        "What it hit, newest first",
        HITS,
        "list_requests",
        query={"fault_id": fault_id},
        empty="No hit yet in the journal, which keeps the newest 1000 calls.",
        prepare=_with_event,
    )
    return await view.render(
        "fault.html", tables=[hits], fault=found, state=state(found, clock["now"]), title=_title(found),
        match=_pairs(found["match"]),
    )  # fmt: skip


def _with_event(call: Row) -> dict[str, Any]:
    return {**call, "event_id": call["request_headers"].get("webhook-id")}
