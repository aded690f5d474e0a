"""The timeline of a finding: what the application did and what the provider did, in order."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from psp_sandbox.testing.explore.points import can_fail, reference_in, rows_of
from psp_sandbox.testing.explore.results import TimelineRow

MAX_ROWS: Final = 60
_APPLICATION: Final = "application"
_PROVIDER: Final = "provider"
_CLOCK: Final = "/sandbox/v1/clock"
_FAULTS: Final[Mapping[str, str]] = {
    "connection_reset": "the connection is lost, and with it the answer",
    "slow_after_commit": "the answer comes after the webhooks",
    "truncated_body": "only half of the answer arrives",
    "duplicate": "it is sent twice",
    "delay": "it is sent late",
    "drop": "it is not sent",
}
"""Kind of fault → what the provider's side shows."""


def timeline_of(bundle: Mapping[str, Any], key_id: str) -> tuple[TimelineRow, ...]:
    """Return what a world bundle shows, as at most 60 rows. `key_id` is the application's API key."""
    calls = list(_timed(bundle))
    number_of = {call["request_id"]: number for number, (_, call) in enumerate(calls)}
    rows = sorted([*_calls(calls, key_id), *_events(bundle, number_of), *_attempts(bundle, number_of)], key=lambda row: row[0])
    return shortened([row for _, row in rows])


def shortened(rows: Sequence[TimelineRow]) -> tuple[TimelineRow, ...]:
    """Return at most 60 rows: the first ones, where it goes wrong, and the last ones, which show what became of it."""
    if len(rows) <= MAX_ROWS:
        return tuple(rows)
    first, last = rows[: MAX_ROWS // 2], rows[1 - MAX_ROWS // 2 :]
    left_out = rows[len(first) : -len(last)]
    gap = TimelineRow(left_out[0].at, left_out[0].side, f"… {len(left_out):,} more entries: the world bundle has them all …")
    return (*first, gap, *last)


Timed = tuple[tuple[datetime, int, int, str], TimelineRow]
"""A row with what it is ordered by: the time, the call that caused it, and whether it is a call, a change or a delivery."""


def _row(at: str, number: int, rank: int, order: str, side: str, text: str) -> Timed:
    return (datetime.fromisoformat(at), number, rank, order), TimelineRow(at, side, text)


def _timed(bundle: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the calls with the merchant's time: the journal has the host's, and a frozen clock moves on its own."""
    now = bundle["merchant"]["frozen_at"]
    for call in bundle["journal"]["calls"]:
        yield now or call["at"], call
        if call["path"].startswith(_CLOCK):
            now = _frozen_at(call["response_body"])


def _frozen_at(answer: str) -> str | None:
    try:
        state = json.loads(answer)
    except ValueError:
        return None
    return state.get("frozen_at") if isinstance(state, dict) else None


def _calls(calls: Sequence[tuple[str, Mapping[str, Any]]], key_id: str) -> Iterator[Timed]:
    for number, (at, call) in enumerate(calls):
        path = call["path"]
        if call["api_key_id"] == key_id and can_fail(path):
            name = f"{call['method']} {path.removeprefix('/api/v1')}"
            key = f", key {call['idempotency_key']}" if call["idempotency_key"] else ""
            reference = reference_in(call)
            about = f" for {reference}" if reference else ""
            yield _row(at, number, 0, "", _APPLICATION, f"calls {name}{about}{key}")
            yield _row(at, number, 0, "answer", _PROVIDER, _answer(call))


def _answer(call: Mapping[str, Any]) -> str:
    fault = call["fault"]
    if fault is None:
        return f"answers {call['status']}{' as before' if call['replayed'] else ''}"
    if fault["kind"] == "connection_reset" and call["status"] == 503:
        return "the connection is lost before anything happens"
    if fault["kind"] in _FAULTS:
        return f"answers {call['status']}, but {_FAULTS[fault['kind']]}"
    return f"answers {call['status']} without executing it"


def _events(bundle: Mapping[str, Any], number_of: Mapping[str, int]) -> Iterator[Timed]:
    references = {row["id"]: row["merchant_reference"] for row in rows_of(bundle, "payouts")}
    for row in rows_of(bundle, "events"):
        if row["payout_id"] is not None:
            change = f"{row['from_status'] or 'new'} → {row['to_status']}"
            number = number_of.get(row["request_id"], len(number_of))
            text = f"{references.get(row['payout_id'])}: {change} ({row['type']})"
            yield _row(row["created_at"], number, 1, row["id"], _PROVIDER, text)


def _attempts(bundle: Mapping[str, Any], number_of: Mapping[str, int]) -> Iterator[Timed]:
    events = {row["id"]: row for row in rows_of(bundle, "events")}
    of_delivery = {row["id"]: events[row["event_id"]] for row in rows_of(bundle, "webhook_deliveries")}
    for row in rows_of(bundle, "webhook_attempts"):
        event = of_delivery[row["delivery_id"]]
        side, text = _attempt(event["type"], row)
        number = number_of.get(event["request_id"], len(number_of))
        yield _row(row["at"], number, 2, f"{row['delivery_id']}{row['attempt']:03}", side, text)


def _attempt(event_type: str, row: Mapping[str, Any]) -> tuple[str, str]:
    fault = row.get("fault_kind")
    if fault == "drop":
        return _PROVIDER, f"{event_type} is lost"
    if row["status"] is None and fault is not None:
        return _PROVIDER, f"{event_type}: {_FAULTS.get(fault, fault)}"
    twice = " twice" if fault == "duplicate" else ""
    answer = f"answers {row['status']}" if row["status"] else f"does not answer ({row['error']})"
    return _APPLICATION, f"gets {event_type}{twice}, and {answer}"
