"""The timeline of a finding: what the application did and what the provider did, in order."""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from psp_sandbox.testing.explore.points import FAULT_PREFIXES, rows_of
from psp_sandbox.testing.explore.results import TimelineRow

_MAX_ROWS: Final = 60
_APPLICATION: Final = "application"
_PROVIDER: Final = "provider"
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
    """Return the newest rows that a world bundle shows, at most 60. `key_id` is the application's API key."""
    rows = sorted([*_calls(bundle, key_id), *_events(bundle), *_attempts(bundle)], key=lambda row: row[0])
    return tuple(row for _, row in rows)[-_MAX_ROWS:]


Timed = tuple[tuple[datetime, int, str], TimelineRow]


def _row(at: str, rank: int, order: str, side: str, text: str) -> Timed:
    return (datetime.fromisoformat(at), rank, order), TimelineRow(at, side, text)


def _calls(bundle: Mapping[str, Any], key_id: str) -> Iterator[Timed]:
    for number, call in enumerate(bundle["journal"]["calls"]):
        path = call["path"]
        order = f"{number:06}"
        if call["api_key_id"] == key_id and path.startswith(FAULT_PREFIXES):
            name = f"{call['method']} {path.removeprefix('/api/v1')}"
            key = f", key {call['idempotency_key']}" if call["idempotency_key"] else ""
            yield _row(call["at"], 0, order, _APPLICATION, f"calls {name}{_reference(call['request_body'])}{key}")
            yield _row(call["at"], 0, order + "a", _PROVIDER, _answer(call))


def _reference(body: str) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    reference = found.get("merchant_reference") if isinstance(found, dict) else None
    return f" for {reference}" if reference else ""


def _answer(call: Mapping[str, Any]) -> str:
    fault = call["fault"]
    if fault is None:
        return f"answers {call['status']}{' as before' if call['replayed'] else ''}"
    if fault["kind"] == "connection_reset" and call["status"] == 503:
        return "the connection is lost before anything happens"
    if fault["kind"] in _FAULTS:
        return f"answers {call['status']}, but {_FAULTS[fault['kind']]}"
    return f"answers {call['status']} without executing it"


def _events(bundle: Mapping[str, Any]) -> Iterator[Timed]:
    references = {row["id"]: row["merchant_reference"] for row in rows_of(bundle, "payouts")}
    for row in rows_of(bundle, "events"):
        if row["payout_id"] is not None:
            change = f"{row['from_status'] or 'new'} → {row['to_status']}"
            yield _row(
                row["created_at"], 1, row["id"], _PROVIDER, f"{references.get(row['payout_id'])}: {change} ({row['type']})"
            )


def _attempts(bundle: Mapping[str, Any]) -> Iterator[Timed]:
    types = {row["id"]: row["type"] for row in rows_of(bundle, "events")}
    of_delivery = {row["id"]: types[row["event_id"]] for row in rows_of(bundle, "webhook_deliveries")}
    for row in _newest(rows_of(bundle, "webhook_attempts")):
        event_type, order = of_delivery[row["delivery_id"]], f"{row['delivery_id']}{row['attempt']:03}"
        fault = row.get("fault_kind")
        if fault == "drop":
            yield _row(row["at"], 2, order, _PROVIDER, f"{event_type} is lost")
        elif row["status"] is None and fault is not None:
            yield _row(row["at"], 2, order, _PROVIDER, f"{event_type}: {_FAULTS.get(fault, fault)}")
        else:
            twice = " twice" if fault == "duplicate" else ""
            answer = f"answers {row['status']}" if row["status"] else f"does not answer ({row['error']})"
            yield _row(row["at"], 2, order, _APPLICATION, f"gets {event_type}{twice}, and {answer}")


def _newest(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(rows, key=lambda row: str(row["at"]))[-_MAX_ROWS:]
