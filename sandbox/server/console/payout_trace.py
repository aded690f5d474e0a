"""Arrange what belongs to a payout as lanes, marks and bars of a drawing: its requests, money, events and webhooks. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sandbox.domain.ledger import AVAILABLE, LOCKED, SETTLEMENT
from sandbox.domain.payout_states import TRANSITIONS
from sandbox.server.console.texts import moment, money, tone
from sandbox.server.console.trace import Bar, Lane, Mark, Moment, Trace, draw

MAX_ENDPOINTS: Final = 6
"""How many endpoints have a lane of their own. Those with the most to show come first."""
_ACCOUNTS: Final = (
    (AVAILABLE, "Available", "came back"),
    (LOCKED, "Locked", "is reserved"),
    (SETTLEMENT, "Settlement", "is paid out"),
)
_NAME_LENGTH: Final = 24

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Known:
    """What the API says about a payout. Each change has its `entries`, and its `deliveries` with their attempts or None.

    The requests are those of `in_merchants_time`.
    """

    payout: Row
    changes: Sequence[Row]
    requests: Sequence[Row]
    endpoints: Mapping[str, Row]
    due: Sequence[Row]
    clock: Row


def payout_trace(known: Known) -> Trace:
    """Return the drawing of a payout."""
    orders = _orders(known.changes)
    requests = _requests(known.requests)
    webhooks, lanes = _webhooks(known, orders)
    status_marks = _changes(known.changes, orders)
    money_marks, money_bars = _money(known.changes, orders, money(known.payout["amount"]))
    status_lane = Lane("status", "Status", "changes", _status(known.payout), tone(known.payout["status"]), has_labels=True)
    return draw(
        [
            Lane("requests", "Your requests", "requests", _requests_summary(known.requests), _worst(requests)),
            status_lane,
            *_accounts(money_bars),
            Lane("events", "Events", "events", _events_summary(known.changes)),
            *lanes,
        ],
        [
            *requests,
            *status_marks,
            *money_marks,
            *_events(known.changes, orders),
            *webhooks,
            *_steps(known.due),
        ],
        [*_statuses(known.changes, orders), *money_bars],
        known.clock["now"],
    )


def payouts_trace(payouts: Sequence[Row], timelines: Sequence[Sequence[Row]], now: str) -> Trace:
    """Return the drawing of several payouts, each with its timeline: a lane for each."""
    lanes, marks, bars = [], [], []
    for payout, changes in zip(payouts, timelines, strict=True):
        key, href = payout["id"], f"/payouts/{payout['id']}"
        found, orders = tone(payout["status"]), _orders(changes)
        lanes.append(
            Lane(key, _cut(payout["merchant_reference"]), "changes", _status(payout), found, href, payout["merchant_reference"])
        )
        ends: list[Moment | None] = [*orders[1:], None]
        for change, at, end in zip(changes, orders, ends, strict=True):
            text = f"{payout['merchant_reference']}: {change['to']}, {moment(at[0])}"
            marks.append(Mark(key, at[0], text, href, tone(change["to"]), at[1]))
            bars.append(Bar(key, at, end, tone(change["to"])))
    return draw(lanes, marks, bars, now)


def _orders(changes: Sequence[Row]) -> list[Moment]:
    """Return the moment of each change: its time, and its place among the changes of that time."""
    found: list[Moment] = []
    for change in changes:
        is_same = found and found[-1][0] == change["at"]
        found.append((change["at"], found[-1][1] + 1 if is_same else 0))
    return found


def _worst(marks: Iterable[Mark]) -> str:
    return "bad" if any(mark.tone == "bad" for mark in marks) else "neutral"


def _anchor(number: int) -> str:
    return f"#change-{number + 1}"


# ---------------------------------------------------------------------------------------------------- requests


def in_merchants_time(requests: Sequence[Row], changes: Sequence[Row], clock: Row) -> list[dict[str, Any]]:
    """Return requests, newest first, with their `moment` in the merchant's time, and the time in words. The journal has the
    host's time only.

    A request that caused a change happened when the change did. Any other happened after the one before it; exactly when
    is only known if the clock was never moved.
    """
    orders = _orders(changes)
    caused: dict[str, Moment] = {}
    for change, at in zip(changes, orders, strict=True):
        if change["cause"] == "api":
            caused.setdefault(change["request_id"], at)
    shows_host = not clock["frozen"] and not clock["offset_seconds"]
    latest, found = orders[0], list[dict[str, Any]]()
    for request in reversed(requests):
        is_known = request["request_id"] in caused or shows_host
        latest = place = caused.get(request["request_id"], latest)
        if shows_host and request["request_id"] not in caused:
            place = max((request["at"], 0), latest)
        words = f"{'' if is_known else 'after '}{moment(place[0])}"
        host = "" if shows_host else f" (host's time: {moment(request['at'])})"
        found.append({**request, "moment": place, "time": words, "said": f"{words}{host}"})
    return found[::-1]


def _requests(requests: Sequence[Row]) -> list[Mark]:
    return [
        Mark(
            "requests",
            request["moment"][0],
            f"{request['method']} {request['path']}: {request['status']} in {request['duration_ms']} ms, {request['said']}",
            f"/requests/{request['id']}",
            "good" if request["status"] < 400 else "bad",
            request["moment"][1],
            milliseconds=request["duration_ms"],
        )
        for request in reversed(requests)
    ]


def _requests_summary(requests: Sequence[Row]) -> str:
    refused = sum(request["status"] >= 400 for request in requests)
    return f"{len(requests) or 'none'} in the journal{f', {refused} refused' if refused else ''}"


# ---------------------------------------------------------------------------------------------------- status and money


def _status(payout: Row) -> str:
    return f"{payout['status']}{': ' + payout['failure_code'] if payout['failure_code'] else ''}"


def _changes(changes: Sequence[Row], orders: Sequence[Moment]) -> list[Mark]:
    return [
        Mark("status", at, f"{change['to']} by {change['caused_by']}, {moment(at)}", _anchor(number), tone(change["to"]),
             order, label=change["to"])
        for number, (change, (at, order)) in enumerate(zip(changes, orders, strict=True))
    ]  # fmt: skip


def _statuses(changes: Sequence[Row], orders: Sequence[Moment]) -> list[Bar]:
    ends: list[Moment | None] = [*orders[1:], None]
    return [Bar("status", start, end, tone(change["to"])) for change, start, end in zip(changes, orders, ends, strict=True)]


def _money(changes: Sequence[Row], orders: Sequence[Moment], amount: str) -> tuple[list[Mark], list[Bar]]:
    """Return a mark for each account that a change debits or credits, and bars that show which account the amount was in."""
    marks, stays = [], []
    for number, (change, at) in enumerate(zip(changes, orders, strict=True)):
        found = TRANSITIONS.get((change["from"], change["to"])) if change["ledger_transfer_id"] else None
        movement = None if found is None else found.movement
        if movement is None:
            continue
        balances = {entry["account"]: f": balance {money(entry['balance_after'])}" for entry in change["entries"]}
        for account, sign in ((movement.debit, "−"), (movement.credit, "+")):
            text = f"{account} {sign}{amount}{balances.get(account, '')}, {moment(at[0])}"
            marks.append(Mark(account, at[0], text, _anchor(number), order=at[1]))
        stays.append((movement.credit, at))
    ends = [*(at for _, at in stays[1:]), None]
    bars = [
        Bar(account, at, end, "good" if account == SETTLEMENT else "neutral", amount)
        for (account, at), end in zip(stays, ends, strict=True)
    ]
    return marks, bars


def _accounts(bars: Sequence[Bar]) -> list[Lane]:
    now = next((bar for bar in bars if bar.end is None), None)
    return [
        Lane(key, name, "entries", f"{now.label} {verb}" if now is not None and now.lane == key else "")
        for key, name, verb in _ACCOUNTS
    ]


# ---------------------------------------------------------------------------------------------------- events and webhooks


def _events(changes: Sequence[Row], orders: Sequence[Moment]) -> list[Mark]:
    return [
        Mark("events", at, f"{change['event_type']}, {moment(at)}", f"/webhooks/events/{change['event_id']}", order=order)
        for change, (at, order) in zip(changes, orders, strict=True)
    ]


def _events_summary(changes: Sequence[Row]) -> str:
    drawn = sum(change["deliveries"] is not None for change in changes)
    return f"{len(changes)} sent" if drawn == len(changes) else f"{len(changes)}; below, webhooks of the last {drawn}"


def _webhooks(known: Known, orders: Sequence[Moment]) -> tuple[list[Mark], list[Lane]]:
    """Return the marks of the attempts, past and due, and the lanes of the endpoints."""
    by_endpoint: dict[str, list[tuple[Moment, Row]]] = {}
    for change, at in zip(known.changes, orders, strict=True):
        for delivery in change["deliveries"] or ():
            by_endpoint.setdefault(delivery["endpoint_id"], []).append((at, delivery))
    most_first = sorted(by_endpoint, key=lambda id_: -sum(delivery["attempt_count"] for _, delivery in by_endpoint[id_]))
    shown = sorted(most_first[:MAX_ENDPOINTS])
    lanes, marks = [], []
    for endpoint_id in shown:
        found = by_endpoint[endpoint_id]
        rows = [delivery for _, delivery in found]
        endpoint = known.endpoints.get(endpoint_id)
        lanes.append(_endpoint(endpoint_id, endpoint, rows, known.clock["now"]))
        marks += [
            attempt_mark(endpoint_id, delivery, attempt, at) for at, delivery in found for attempt in delivery["attempts"]
        ]
    for item in known.due:
        if item["kind"] == "delivery_attempt" and item["endpoint_id"] in shown:
            text = f"Due: {item['description']}, {moment(item['due_at'])}"
            marks.append(
                Mark(item["endpoint_id"], item["due_at"], text, f"/webhooks/deliveries/{item['delivery_id']}", is_due=True)
            )
    return marks, lanes


def _endpoint(endpoint_id: str, endpoint: Row | None, deliveries: Sequence[Row], now: str) -> Lane:
    url = "deleted endpoint" if endpoint is None else endpoint["url"]
    name = url.partition("://")[2] or url
    received = [delivery for delivery in deliveries if delivery["status"] == "SUCCEEDED"]
    missing = [delivery for delivery in deliveries if delivery["status"] != "SUCCEEDED" and delivery["attempts"]]
    return Lane(
        endpoint_id,
        name if len(name) <= _NAME_LENGTH else f"…{name[1 - _NAME_LENGTH :]}",  # the ends of URLs differ
        "attempts",
        _received(received, missing, len(deliveries), now),
        _health(received, missing),
        "" if endpoint is None else f"/webhooks/{endpoint_id}",
        url,
    )


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"


def _health(received: Sequence[Row], missing: Sequence[Row]) -> str:
    if missing:
        return "bad"
    has_failed = any(attempt["error_class"] for delivery in received for attempt in delivery["attempts"])
    return "warn" if has_failed else "good" if received else "neutral"


def _received(received: Sequence[Row], missing: Sequence[Row], total: int, now: str) -> str:
    """Return whether an endpoint has got the events, and when, in about 35 characters."""
    if missing:
        what = missing[-1]["event_type"] if len(missing) == 1 else f"{len(missing)} of {total} events"
        return f"has not got {what}"
    if not received:
        return "not sent yet"
    at = max(attempt["at"] for delivery in received for attempt in delivery["attempts"][-1:])
    when = at[11:19] if at[:10] == now[:10] else f"{at[5:10]} {at[11:19]}"
    failed = sum(attempt["error_class"] is not None for delivery in received for attempt in delivery["attempts"])
    got = f"got all {total}" if len(received) == total else f"got {len(received)} of {total}"
    tries = "" if not failed else ", 1 failed try" if failed == 1 else f", {failed} failed tries"
    return f"{got} by {when}{tries}"


def answer(attempt: Row) -> str:
    """Return what an attempt got: an HTTP status, or the kind of error."""
    return str(attempt["status"] if attempt["status"] is not None else attempt["error_class"] or "no response")


def attempt_mark(lane: str, delivery: Row, attempt: Row, of_change: Moment = ("", 0)) -> Mark:
    """Return the mark of an attempt at a delivery, in the column of its change if both have the same time."""
    resent = ", resent" if attempt["manual"] else ""
    text = (
        f"Attempt {attempt['attempt']} of {delivery['event_type']}{resent}: {answer(attempt)} in "
        f"{attempt['duration_ms']} ms, {moment(attempt['at'])}"
    )
    good = "bad" if attempt["error_class"] else "good"
    order = of_change[1] if attempt["at"] == of_change[0] else 0
    href = f"/webhooks/deliveries/{delivery['id']}"
    return Mark(lane, attempt["at"], text, href, good, order, milliseconds=attempt["duration_ms"])


def _steps(due: Sequence[Row]) -> list[Mark]:
    return [
        Mark("status", item["due_at"], f"Due: {item['description']}, {moment(item['due_at'])}", "#next", tone(item["to"]),
             is_due=True, label=item["to"] or "")
        for item in due if item["kind"] == "payout_step"
    ]  # fmt: skip
