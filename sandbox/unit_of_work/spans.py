"""Export the spans of units of work: one for each trace that a unit changes, and in it one for each change of a payout."""

import time
from collections import defaultdict
from collections.abc import Sequence

from sandbox.domain.events import NewEvent
from sandbox.domain.trace import derive
from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure import tracing


def export_spans(units: Sequence[UnitOfWork], started: float) -> None:
    """Export the spans of units that one transaction has just committed. `started` is its begin, from `perf_counter`."""
    if not tracing.is_on():
        return
    seconds = time.perf_counter() - started
    for unit in units:
        by_trace: dict[str, list[NewEvent]] = defaultdict(list)
        for event in unit.events:
            by_trace[event.traceparent or derive(event.request_id)].append(event)
        for traceparent, events in by_trace.items():
            shared = {
                "psp.merchant.id": unit.merchant_id,
                "psp.batch.merchants": len(units),
                "psp.batch.events": len(unit.events),
            }
            parent = tracing.span("unit of work", traceparent, seconds, shared)
            for event in events:
                _export_change(event, parent, seconds)


def _export_change(event: NewEvent, parent: str, seconds: float) -> None:
    tracing.span(
        event.type,
        parent,
        seconds,
        {
            "psp.event.id": event.id,
            "psp.payout.id": event.payout_id,
            "psp.payout.from": event.from_status,
            "psp.payout.to": event.to_status,
            "psp.cause": event.cause,
            "psp.scenario": event.scenario,
            "psp.step": event.step,
            "psp.ledger_transfer.id": event.transfer_id,
            "psp.request.id": event.request_id,
        },
    )
