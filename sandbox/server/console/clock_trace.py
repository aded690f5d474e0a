"""Arrange what the merchant's clock will run, and what it has run, as a drawing. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sandbox.server.console.texts import moment, tone
from sandbox.server.console.trace import Bar, Lane, Mark, Trace, draw

_LANES: Final = (
    Lane("payout_step", "Payouts", "steps"),
    Lane("sale_payment", "Sales", "payments"),
    Lane("delivery_attempt", "Webhooks", "attempts", has_labels=True),
)

Row = Mapping[str, Any]


def moments(items: Sequence[Row]) -> list[str]:
    """Return the times at which something is due, in order."""
    return sorted({item["due_at"] for item in items})


def due_trace(items: Sequence[Row], now: str, chosen: str | None) -> Trace:
    """Return the drawing of what is due. A bar leads from now to the time that was chosen, if any."""
    places = {at: number for number, at in enumerate(moments(items), start=1)}
    marks = [
        Mark(
            item["kind"],
            item["due_at"],
            f"{item['description']}, {moment(item['due_at'])}",
            f"/world?upto={places[item['due_at']]}#preview",
            is_due=True,
        )
        for item in items
    ]
    lanes = _lanes(marks, "due")
    bars = [Bar(lane.key, (chosen, 0), None, "good") for lane in lanes] if chosen is not None else []
    return draw(lanes, marks, bars, now)


def ran_trace(steps: Sequence[Row], now: str) -> Trace:
    """Return the drawing of the steps that a run made until `now`: each with its result."""
    marks = [_ran(step) for step in steps]
    return draw(_lanes(marks, "ran"), marks, [], now)


def _lanes(marks: Sequence[Mark], what: str) -> list[Lane]:
    counts = {lane.key: [mark for mark in marks if mark.lane == lane.key] for lane in _LANES}
    found = []
    for lane in _LANES:
        bad = sum(mark.tone == "bad" for mark in counts[lane.key])
        if counts[lane.key]:
            summary = f"{len(counts[lane.key])} {what}{f', {bad} failed' if bad else ''}"
            found.append(replace(lane, summary=summary, tone="bad" if bad else "neutral"))
    return found or [_LANES[0]]


def _ran(step: Row) -> Mark:
    text = f"{step['what']}: {step['result']}{', ' + step['detail'] if step['detail'] else ''}, {moment(step['at'])}"
    answer = str(step["status"] or "none") if step["kind"] == "delivery_attempt" else ""
    return Mark(step["kind"], step["at"], text, _page(step), tone(step["result"]), label=answer)


def _page(step: Row) -> str:
    if step["kind"] == "delivery_attempt":
        return f"/webhooks/deliveries/{step['delivery_id']}"
    return f"/users/sales/{step['sale_id']}" if step["kind"] == "sale_payment" else f"/payouts/{step['payout_id']}"
