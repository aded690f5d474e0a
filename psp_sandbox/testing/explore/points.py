"""The points of a test: each place where the world can misbehave, found in a recording of a run without faults."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Final

from psp_sandbox.testing.explore.results import At, Kind

_CONTROLS: Final = "/sandbox/"
"""The paths that faults do not apply to. All others are the API, natively or in a dialect."""
_REFERENCES: Final = ("merchant_reference", "request_id")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_READS: Final = ("GET", "HEAD")
DAY_HOURS: Final = 25
"""After this many hours, an idempotency key has expired."""

OF_WRITES: Final = (
    Kind.ANSWER_LOST, Kind.REQUEST_LOST, Kind.ANSWER_AFTER_WEBHOOKS, Kind.HALF_ANSWER, Kind.GATEWAY_ERROR, Kind.UNAVAILABLE,
    Kind.RATE_LIMITED, Kind.KEY_EXPIRED,
)  # fmt: skip
OF_READS: Final = (Kind.ANSWER_LOST, Kind.UNAVAILABLE, Kind.RATE_LIMITED)
OF_EVENTS: Final = (Kind.TWICE, Kind.LATE, Kind.OUT_OF_ORDER, Kind.ONLY_RECOVERED, Kind.FORGED)
OF_STATUSES: Final[Mapping[str, Kind]] = {
    "FAILED": Kind.REINITIATED_TWICE,
    "SUCCESS": Kind.RETURNED,
    "REQUESTED": Kind.CANCELLED,
    "PENDING": Kind.CANCELLED,
    "ON_HOLD": Kind.CANCELLED,
    "IN_REVIEW": Kind.CANCELLED,
}
"""The status in which a payout is when the test ends → what an operator can do next."""
OF_RESTARTS: Final = (Kind.KILLED_BEFORE_ANSWER, Kind.KILLED_AFTER_ANSWER)

_LATE_MS: Final = 2 * 3_600_000
_SLOW_MS: Final = 700
"""In real time: long enough for the webhooks of a call to arrive before its answer."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that the application made. Ids in the path are replaced by `*`."""

    method: str
    path: str
    events_before: int = field(default=0, compare=False)
    """How many events there are of payouts that earlier calls created."""

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing."""
        return self.method in _READS

    @property
    def name(self) -> str:
        """The call as a point shows it, such as `POST /payouts/{id}/cancel`."""
        return f"{self.method} {self.path.removeprefix('/api/v1').replace('*', '{id}')}"


@dataclass(frozen=True, slots=True)
class Event:
    """An event that was delivered to the application."""

    type: str
    payout_id: str | None
    at: datetime
    status: str | None = None
    """The status that the payout changed to."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What happened in a run without faults, until the test ended."""

    calls: tuple[Call, ...]
    events: tuple[Event, ...]
    """In the order in which they happened."""
    statuses: tuple[str, ...]
    """The statuses of the payouts, in the order in which they were created."""

    @property
    def signature(self) -> tuple[Any, ...]:
        """What must be equal in two runs: the calls, repeated reads counted once, and the events of each payout."""
        calls = tuple(call for before, call in zip((None, *self.calls), self.calls, strict=False) if _is_new(before, call))
        by_payout: dict[str | None, list[str]] = {}
        for event in self.events:
            by_payout.setdefault(event.payout_id, []).append(event.type)
        return calls, tuple(map(tuple, by_payout.values())), self.statuses


def _is_new(before: Call | None, call: Call) -> bool:
    return not (call.is_read and call == before)


@dataclass(frozen=True, slots=True)
class Point:
    """One place where the world misbehaves, and how. `place` and `kind` name it within its test."""

    at: At
    place: str
    kind: Kind
    match: tuple[str, ...] = ()
    """Of a call: method and path; of an event: its type and the status that it led to; of a status: the status."""
    skip: int = 0
    """How many of what matches comes before."""
    gap_ms: int = 0
    """The merchant's time from an event to its successor."""
    events_before: int = 0
    """How many events are delivered before a call."""

    @property
    def name(self) -> str:
        """The name within the test: `POST /payouts#2:answer_lost`."""
        return f"{self.place}:{self.kind}"


REST: Final = Point(At.REST, "rest", Kind.TIME_PASSES)
"""The run without any fault: what happens when time passes is a point of its own."""


def recording_of(bundle: Mapping[str, Any], key_id: str) -> Recording:
    """Return what a world bundle shows. `key_id` is the application's API key; other calls are the test's own."""
    events = {row["id"]: row for row in rows_of(bundle, "events")}
    delivered = [events[row["event_id"]] for row in rows_of(bundle, "webhook_deliveries") if row["attempts"]]
    payouts = sorted(rows_of(bundle, "payouts"), key=lambda row: str(row["id"]))
    return Recording(
        tuple(_calls(bundle["journal"]["calls"], key_id, events.values(), delivered)),
        tuple(
            Event(row["type"], row["payout_id"], datetime.fromisoformat(row["created_at"]), row["to_status"])
            for row in delivered
        ),
        tuple(str(row["status"]) for row in payouts),
    )


def _calls(
    journal: Iterable[Mapping[str, Any]],
    key_id: str,
    events: Iterable[Mapping[str, Any]],
    delivered: Sequence[Mapping[str, Any]],
) -> Iterator[Call]:
    created: dict[str, set[str]] = {}
    for event in events:
        if event["from_status"] is None and event["payout_id"] is not None:
            created.setdefault(event["request_id"], set()).add(event["payout_id"])
    known: set[str] = set()
    for call in journal:
        if call["api_key_id"] == key_id and can_fail(call["path"]):
            before = sum(event["payout_id"] in known for event in delivered)
            yield Call(call["method"], _UUID.sub("*", call["path"]), before)
        known |= created.get(call["request_id"], set())


def can_fail(path: str) -> bool:
    """Whether faults apply to a path."""
    return not path.startswith(_CONTROLS)


def body_of(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the JSON object that a call of the journal has sent; empty if it is none."""
    try:
        found = json.loads(call["request_body"])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def reference_in(call: Mapping[str, Any]) -> str | None:
    """Return the reference in the body of a call, natively or in a dialect."""
    body = body_of(call)
    return next((str(body[name]) for name in _REFERENCES if body.get(name)), None)


def rows_of(bundle: Mapping[str, Any], table: str) -> list[dict[str, Any]]:
    """Return the rows of a bundle's table."""
    found = bundle["tables"][table]
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


def plan(recording: Recording, *, can_restart: bool) -> list[Point]:
    """Return all points of a test, in the order of the recording."""
    return [*_of_calls(recording.calls), *_of_events(recording.events, can_restart), *_of_statuses(recording.statuses)]


def _of_calls(calls: Sequence[Call]) -> Iterator[Point]:
    seen: Counter[Call] = Counter()
    for number, call in enumerate(calls):
        seen[call] += 1
        if call.is_read and number and calls[number - 1] == call:
            continue  # the next of a series of polls
        # A `*` also matches longer paths, so count what the fault's pattern matches.
        skip = sum(one.method == call.method and fnmatchcase(one.path, call.path) for one in calls[:number])
        at, kinds = (At.READ, OF_READS) if call.is_read else (At.WRITE, OF_WRITES)
        for kind in kinds:
            place = f"{call.name}#{seen[call]}"
            yield Point(at, place, kind, (call.method, call.path), skip, events_before=call.events_before)


def _of_events(events: Sequence[Event], can_restart: bool) -> Iterator[Point]:
    seen: Counter[str] = Counter()
    for number, event in enumerate(events):
        place, skip = f"{event.type}#{seen[event.type] + 1}", seen[event.type]
        seen[event.type] += 1
        successor = next((one for one in events[number + 1 :] if one.payout_id == event.payout_id is not None), None)
        for kind in (*OF_EVENTS, *(OF_RESTARTS if can_restart else ())):
            if kind is not Kind.OUT_OF_ORDER or successor is not None:
                gap = 0 if successor is None else int((successor.at - event.at).total_seconds() * 1000)
                match = (event.type,) if event.status is None else (event.type, event.status)
                yield Point(At.APPLICATION if kind in OF_RESTARTS else At.EVENT, place, kind, match, skip, gap)


def _of_statuses(statuses: Sequence[str]) -> Iterator[Point]:
    seen: Counter[str] = Counter()
    for status in statuses:
        seen[status] += 1
        if status in OF_STATUSES:
            yield Point(At.STATUS, f"{status}#{seen[status]}", OF_STATUSES[status], (status,), seen[status] - 1)


def faults_of(point: Point, key_id: str) -> list[dict[str, Any]]:
    """Return the bodies of `POST /faults` that make the world misbehave at a point. Some points need none."""
    if point.at in (At.WRITE, At.READ):
        method, path = point.match
        common = {"target": "api", "match": {"method": method, "path": path, "api_key_id": key_id}, "skip": point.skip}
        # While there is no answer for a day, no webhook tells the application of its payout either.
        silence = {"target": "webhooks", "kind": "drop", "skip": point.events_before}
        return [{**common, **_OF_CALLS[point.kind]}, *([silence] if point.kind is Kind.KEY_EXPIRED else [])]
    if point.at is At.EVENT and point.kind is not Kind.FORGED:
        common = {"target": "webhooks", "match": {"event_type": point.match[0]}, "skip": point.skip}
        return [{**common, **_of_event(point)}]
    return []


_OF_CALLS: Final[Mapping[Kind, dict[str, Any]]] = {
    Kind.REQUEST_LOST: {"kind": "connection_reset", "when": "before_effect", "count": 1},
    Kind.ANSWER_LOST: {"kind": "connection_reset", "count": 1},
    Kind.ANSWER_AFTER_WEBHOOKS: {"kind": "slow_after_commit", "milliseconds": _SLOW_MS, "count": 1},
    Kind.HALF_ANSWER: {"kind": "truncated_body", "count": 1},
    Kind.GATEWAY_ERROR: {"kind": "error", "status": 502, "when": "after_effect", "count": 1},
    Kind.UNAVAILABLE: {"kind": "error", "status": 503, "count": 1},
    Kind.RATE_LIMITED: {"kind": "rate_limit", "retry_after": 1, "count": 1},
    Kind.KEY_EXPIRED: {"kind": "connection_reset"},
}


def _of_event(point: Point) -> dict[str, Any]:
    if point.kind is Kind.TWICE:
        return {"kind": "duplicate", "count": 1}
    if point.kind is Kind.LATE:
        return {"kind": "delay", "milliseconds": _LATE_MS, "count": 1}
    if point.kind is Kind.OUT_OF_ORDER:
        return {"kind": "delay", "milliseconds": point.gap_ms + 1000, "count": 1}
    return {"kind": "drop"}  # until it is recovered
