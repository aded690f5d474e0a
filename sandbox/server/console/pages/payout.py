"""One payout: what happened, what caused it, who was told, what happens next, and what can be done about it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sandbox.domain.failure_codes import FAILURES
from sandbox.domain.payout_states import TRANSITIONS
from sandbox.http.responses import Response
from sandbox.server.console.data_table import Column
from sandbox.server.console.payout_trace import Known, answer, in_merchants_time, payout_trace
from sandbox.server.console.routing import Pages
from sandbox.server.console.trace import with_wait
from sandbox.server.console.view import View

pages = Pages()

MAX_DETAILED_CHANGES: Final = 20
"""In the table, older changes show only the last attempt at each delivery. The drawing has all."""
MAX_ENTRIES: Final = 10
"""How many ledger entries the page lists. The ledger has all, and the drawing and the table of changes show each."""
MAX_DUE: Final = 2
"""How many due steps are shown. The others are on the clock's page."""
MAX_RESENT: Final = 2
"""For how many endpoints the top of the page tells how a webhook that failed went on. The drawing has all."""
ENTRY_COLUMNS: Final = (
    Column("created_at", "Time", "time"),
    Column("account", "Account"),
    Column("direction", "Direction"),
    Column("amount", "Amount", "money"),
    Column("balance_after", "Balance after", "money"),
    Column("reason", "Reason", "code"),
    Column("transfer_id", "Transfer", "id"),
)
REQUEST_COLUMNS: Final = (
    Column("time", "Time"),
    Column("method", "Method", "code"),
    Column("path", "Path", link="/requests/{id}"),
    Column("status", "Status", "number"),
    Column("duration_ms", "Duration (ms)", "number"),
    Column("at", "Host's time", "journal_time"),
    Column("id", "Id", "id", link="/requests/{id}"),
)
_CAUSES: Final = {
    "api": "a request",
    "worker": "the scenario",
    "ipn": "a notification from the bank (IPN)",
    "simulation": "a simulation",
}


@pages.page("/payouts/{payout_id}")
async def payout(view: View) -> Response:
    """Show a payout with everything that belongs to it."""
    payout_id = view.path_parameters["payout_id"]
    found = await view.call("get_payout", path={"payout_id": payout_id})
    of_payout = {"payout_id": payout_id}
    timeline, entries, deliveries, endpoints, due, actions, requests, clock = await asyncio.gather(
        view.call("get_payout_timeline", path=of_payout),
        view.table(
            "entries", "Ledger entries, newest first", ENTRY_COLUMNS, "list_ledger_entries", query=of_payout, limit=100,
            empty="This payout has moved no money.",
        ),
        view.call("list_delivery_attempts", query={**of_payout, "limit": "100"}),
        view.call("list_webhook_endpoints", query={"limit": "100"}, shown=False),
        view.call("list_due", query=of_payout),
        view.call("list_payout_actions", path=of_payout),
        view.table(
            # Not the calls that the sandbox made, such as webhooks that a fault hit: their paths are URLs.
            "requests", "Requests that mention this payout, newest first", REQUEST_COLUMNS, "list_requests",
            query={"q": payout_id, "path": "/*"}, limit=10, empty="The journal has no request that mentions this payout.",
        ),
        view.clock(),
    )  # fmt: skip
    following = [with_wait(item, clock["now"]) for item in due["data"]]
    # Retries of many webhooks must not hide the payout's own next step.
    soon = [item for number, item in enumerate(following) if number < MAX_DUE or item["kind"] == "payout_step"]
    changes = _changes(timeline["data"], entries.rows, deliveries)
    called = in_merchants_time(requests.rows, changes, clock)
    urls = {endpoint["id"]: endpoint for endpoint in endpoints["data"]}
    return await view.render(
        "payout.html",
        tables=[
            entries if view.query.get("csv") else replace(entries, rows=entries.rows[:MAX_ENTRIES]),
            replace(requests, rows=called),
        ],
        has_more_entries=len(entries.rows) > MAX_ENTRIES,
        payout=found,
        trace=payout_trace(Known(found, changes, called, urls, following, clock)),
        changes=changes,
        ended=next((change for change in reversed(changes) if change["to"] == found["status"]), None),
        resent=_resent(changes[-1]["deliveries"] or (), urls),
        retries=sum(change["to"] == "RETRY" for change in changes),
        detailed_from=len(changes) - MAX_DETAILED_CHANGES,
        endpoints=urls,
        due=soon,
        due_later=[item for item in following if item not in soon],
        actions=actions["actions"],
        failure_choices=_failure_choices,
        about=" ".join([payout_id, *(change["event_id"] for change in changes)]),
    )


def _changes(
    timeline: Sequence[Mapping[str, Any]], entries: Sequence[Mapping[str, Any]], deliveries: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the changes in the timeline, each with its cause in words, its ledger entries, its event and its deliveries.

    The deliveries of changes that are older than the listed ones are None.
    """
    by_transfer: dict[str | None, list[Mapping[str, Any]]] = {}
    for entry in reversed(entries):
        by_transfer.setdefault(entry["transfer_id"], []).append(entry)
    by_event: dict[str, list[Mapping[str, Any]]] = {}
    for delivery in reversed(deliveries["data"]):
        by_event.setdefault(delivery["event_id"], []).append(delivery)
    first_listed = min(by_event, default="") if deliveries["has_more"] else ""
    return [
        {
            **change,
            "caused_by": _CAUSES.get(change["cause"], change["cause"]),
            "entries": by_transfer.get(change["ledger_transfer_id"], []),
            "event_type": TRANSITIONS[change["from"], change["to"]].event,
            "deliveries": by_event.get(change["event_id"], []) if change["event_id"] >= first_listed else None,
        }
        for change in timeline
    ]


def _resent(deliveries: Sequence[Mapping[str, Any]], endpoints: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the deliveries of an event that failed at first, or still do: where to, the last attempt, and what failed.

    Attempts that are no longer listed count as failed: a delivery has that many only if it keeps failing.
    """
    found = [
        (delivery, failed)
        for delivery in deliveries
        if delivery["endpoint_id"] in endpoints and (failed := [one for one in delivery["attempts"] if one["error_class"]])
    ]
    return [
        {
            "delivery": delivery,
            "url": endpoints[delivery["endpoint_id"]]["url"],
            "last": delivery["attempts"][-1],
            "failed": delivery["attempt_count"] - len(delivery["attempts"]) + len(failed),
            "failure": answer(failed[-1]),
        }
        for delivery, failed in found[:MAX_RESENT]
    ]


def _failure_choices(codes: Sequence[str]) -> list[tuple[str, str]]:
    """Return failure codes as choices, each with its meaning."""
    return [(code, f"{code}: {FAILURES[code]}" if code in FAILURES else code) for code in codes]
