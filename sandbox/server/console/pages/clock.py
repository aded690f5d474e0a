"""The merchant's clock: what is due, and what an advance ran."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sandbox.domain.clock import parse, render
from sandbox.http.responses import Response
from sandbox.server.console.clock_trace import due_trace, moments, ran_trace
from sandbox.server.console.data_table import Column, Row, Table
from sandbox.server.console.flow_chart import FlowChart, flow_chart
from sandbox.server.console.forms import FormState
from sandbox.server.console.routing import Pages
from sandbox.server.console.trace import with_wait
from sandbox.server.console.view import View

pages = Pages()
RAN: Final = (
    Column("at", "At", "time"),
    Column("what", "What ran"),
    Column("result", "Result", "status"),
    Column("detail", "Detail"),
    Column("payout_id", "Payout", "id", link="/payouts/{payout_id}"),
    Column("sale_id", "Sale", "id", link="/users/sales/{sale_id}"),
    Column("delivery_id", "Delivery", "id", link="/webhooks/deliveries/{delivery_id}"),
    Column("event_id", "Event", "id", link="/webhooks/events/{event_id}"),
)
DUE: Final = (
    Column("due_at", "Due at", "time"),
    Column("description", "What happens"),
    Column("payout_id", "Payout", "id", link="/payouts/{payout_id}"),
    Column("sale_id", "Sale", "id", link="/users/sales/{sale_id}"),
    Column("delivery_id", "Delivery", "id", link="/webhooks/deliveries/{delivery_id}"),
)
SHOWN_STEPS: Final = 25
"""Number of steps that are shown after an advance; the others unfold."""
SHOWN_DUE: Final = 15
DRAWN_DUE: Final = 100
"""The most that a list has. What is due later is neither drawn nor part of a preview."""
SHOWN_AHEAD: Final = 6
AUDITED_CHANGES: Final = 2000
"""Up to so many changes of the balance, an advance's result has the audit's, which reads every entry, at once."""
_NO_IDS: Final = {"payout_id": None, "sale_id": None, "delivery_id": None, "event_id": None}
"""The fields of all kinds of steps. Each kind has some of them."""
_OPERATIONS: Final = {"run-drain": "drain", "run-freeze": "freeze_clock"}
"""Form → the operation that it calls; all other forms advance the clock."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The money that an advance moved, and what the audit found wrong after it; None if the books are too long to check."""

    chart: FlowChart
    failed: list[Mapping[str, Any]] | None


@dataclass(frozen=True, slots=True)
class Ran:
    """A run that a form of this page started: an advance, a freeze at a time, or a drain."""

    title: str
    since: str | None
    """When the clock moved from, if it moved."""
    now: str
    steps: int
    stopped_because: str | None
    listed: int
    first: Table
    rest: Table
    operation_id: str
    key: str
    """The idempotency key: the same request with the same key continues to the same time."""
    again: Mapping[str, str]
    """The fields of the same request."""


@pages.page("/world")
async def clock(view: View) -> Response:
    """Show the clock, with forms to move it, and what the last of them ran."""
    state, found = await asyncio.gather(view.call("get_clock"), view.call("list_due", query={"limit": str(DRAWN_DUE)}))
    due, has_more = _due(found)
    times = moments(found["data"])
    upto = _upto(view.query.get("upto", ""), len(times))
    ahead = [item for item in found["data"] if upto and item["due_at"] <= times[upto - 1]]
    ran = _ran(view.form)
    return await view.render(
        "clock.html",
        tables=[due],
        state=state,
        has_more=has_more,
        drawing=due_trace(found["data"], state["now"], times[upto - 1] if upto else None) if times else None,
        moments=times,
        upto=upto,
        ahead=ahead,
        shown_ahead=SHOWN_AHEAD,
        next=with_wait(found["data"][0], state["now"]) if times else None,
        next_due=next((row["due_at"] for row in due.rows if row["due_at"] > state["now"]), None),
        offset=_offset(state["offset_seconds"]),
        times=_times(state["now"]),
        ran=ran,
        moved=await _moved(view, ran),
        ran_drawing=ran_trace([*ran.first.rows, *ran.rest.rows], ran.now) if ran is not None and ran.first.rows else None,
    )


async def _moved(view: View, ran: Ran | None) -> Moved | None:
    """Return the money that an advance moved; None if it moved none."""
    if ran is None or ran.since is None or not ran.steps:
        return None
    period = {"created_from": ran.since, "created_to": ran.now}
    query = {name: render(parse(at) + timedelta(milliseconds=1)) for name, at in period.items()}
    found, balance, users = await asyncio.gather(
        view.call("get_balance_flows", query=query, shown=False), view.call("get_balance", shown=False),
        view.call("list_users", query={"limit": "1"}, shown=False),
    )  # fmt: skip
    if not found["days"]:
        return None
    # The audit of users reads their wallets too, and a bulk credit can have a million rows.
    is_short = balance["version"] <= AUDITED_CHANGES and not users["data"]
    # The advance has run, so a busy audit must not replace its result by an error.
    report = await view.call_if_found("audit", shown=False) if is_short else None
    failed = None if report is None else [check for check in report["checks"] if not check["ok"]]
    return Moved(flow_chart(found["days"], balance), failed)


def _upto(text: str, count: int) -> int:
    """Return which of the times was chosen, counted from 1; 0 for none."""
    return min(int(text), count) if text.isascii() and text.isdigit() and len(text) < 5 else 0


def _due(found: Mapping[str, Any]) -> tuple[Table, bool]:
    """Return the table of what happens next, and whether there is more to come."""
    items = found["data"][:SHOWN_DUE]
    # One advance runs everything that is due at the same time, so only the first of these rows has a button.
    rows = [
        {**_NO_IDS, **item, "is_first": number == 0 or items[number - 1]["due_at"] != item["due_at"]}
        for number, item in enumerate(items)
    ]
    empty = "Nothing is due. Create a payout to an account that ends in 0012: it is returned a minute later."
    return Table("due", "What is due next", DUE, rows, empty), found["has_more"] or len(found["data"]) > SHOWN_DUE


def _ran(form: FormState | None) -> Ran | None:
    if form is None or not isinstance(form.result, dict):
        return None
    found = form.result
    operation_id = _OPERATIONS.get(form.id, "advance_clock")
    if operation_id == "drain":
        title = "All due work is done" if found["drained"] else "Some work is still due"
    else:
        title = f"The clock moved from {_moment(found['from'])} to {_moment(found['now'])}"
    if found["ran"]:
        title += f": {found['steps']} step{'' if found['steps'] == 1 else 's'} ran"
    again = {name: values[-1] for name, values in form.values.items() if not name.startswith("_")}
    steps = [_step(step) for step in found["ran"]]
    return Ran(
        title=title,
        since=found.get("from"),
        now=found["now"],
        steps=found["steps"],
        stopped_because=found["stopped_because"],
        listed=len(steps),
        first=Table("ran", "What ran, in order", RAN, steps[:SHOWN_STEPS]),
        rest=Table("ran-rest", "What ran after that", RAN, steps[SHOWN_STEPS:]),
        operation_id=operation_id,
        key=next(iter(form.values.get("_key", ())), ""),
        again=again,
    )


def _step(step: Row) -> dict[str, Any]:
    step = {**_NO_IDS, **step}
    if step["kind"] == "payout_step":
        source = step["from"]
        return {**step, "what": "Payout step", "result": step["to"], "detail": f"from {source}" if source else ""}
    if step["kind"] == "sale_payment":
        result = "succeeded" if step["error"] is None else "failed"
        detail = step["error"] or f"{step['payment']} of {step['amount']}"
        return {**step, "what": "Payment of a sale", "result": result, "detail": detail}
    status = step["status"]
    detail = "no response" if status is None else f"HTTP {status}"
    return {**step, "what": f"Webhook attempt {step['attempt']}", "result": step["outcome"], "detail": detail}


def _times(now: str) -> list[tuple[str, str]]:
    """Return suggestions for a time to move the clock to: RFC 3339 and a description."""
    at = parse(now)
    midnight = datetime(at.year, at.month, at.day, tzinfo=at.tzinfo)
    return [
        (render(at + timedelta(hours=1)), "in an hour"),
        (render(midnight + timedelta(days=1)), "next midnight"),
        (render(at + timedelta(days=7)), "in 7 days"),
        (render((midnight.replace(day=28) + timedelta(days=4)).replace(day=1)), "first of next month"),
    ]


def _offset(seconds: float | None) -> str:
    """Return how far a running clock is from the host's, such as `1 day, 2:00:00 ahead of`."""
    if not seconds:
        return ""
    distance = timedelta(seconds=round(abs(seconds)))
    return f"{distance} {'ahead of' if seconds > 0 else 'behind'}"


def _moment(at: str) -> str:
    return at[:19].replace("T", " ")
