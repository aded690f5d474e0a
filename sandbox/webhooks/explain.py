"""Explain a delivery: from the API call through the payout's change and its transfer to each attempt, and what happens next."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sandbox.domain import redaction
from sandbox.domain.clock import Clock, render
from sandbox.domain.errors import Problem
from sandbox.domain.fields import Uuid
from sandbox.domain.ids import MAX_ID
from sandbox.domain.ledger_entry import ENTRY_COLUMNS, ledger_entries
from sandbox.domain.shown import shown
from sandbox.domain.trace import derive
from sandbox.http.journal.journal import Journal, JournalEntry
from sandbox.http.operation import get
from sandbox.infrastructure.db.engine import consistent_read
from sandbox.infrastructure.db.statements import read_statements
from sandbox.webhooks.explanation import (
    DeliveryExplanation,
    ExplainedAttempt,
    ExplainedChange,
    ExplainedEndpoint,
    ExplainedRequest,
    Hold,
    NextAttempt,
    summarize,
)
from sandbox.webhooks.waiting_reasons import (
    DeliveryState,
    EndpointState,
    LastAttempt,
    explain_holds,
    explain_next,
)

_MAX_ATTEMPTS: Final = 100
_MAX_CHANGES: Final = 100
"""Number of earlier changes of the payout that are searched."""
_POSTPONING: Final = ("delay", "reorder")

_SQL: Final = read_statements(__name__, entry_columns=ENTRY_COLUMNS)


class DeliveryExplainer:
    """Explains deliveries."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    @get(
        "/api/v1/webhook-deliveries/{delivery_id}/explain",
        "Explain a delivery",
        {200: DeliveryExplanation},
        description="The path from the API call through the payout's change and its ledger transfer to each attempt, and why "
        "the next attempt is scheduled when it is. `summary` tells it in sentences.",
        psp="deliveries explain",
    )
    async def explain_webhook_delivery(self, merchant_id: str, delivery_id: Uuid) -> DeliveryExplanation:
        """Return a delivery's explanation. Raises NOT_FOUND. If the journal cannot be read, its fields are null."""
        async with consistent_read(merchant_id) as conn:
            found = await conn.fetchrow(_SQL["find"], merchant_id, delivery_id)
            if found is not None:
                payout_id, change, request_id = found["payout_id"], found["change"], found["request_id"]
                attempts = await conn.fetch(_SQL["attempts"], merchant_id, delivery_id, _MAX_ATTEMPTS)
                transfer = earlier = None
                api_key_id = found["actor"]
                if found["transfer_id"] is not None:
                    transfer = await conn.fetchrow(_SQL["transfer"], merchant_id, found["transfer_id"])
                if payout_id is not None and api_key_id is None:
                    api_key_id = await conn.fetchval(_SQL["api_key"], merchant_id, payout_id, change, request_id, _MAX_CHANGES)
                if payout_id is not None and found["ordered"]:
                    endpoint_id = found["endpoint_id"]
                    earlier = await conn.fetchval(_SQL["earlier"], merchant_id, payout_id, change, endpoint_id, _MAX_CHANGES)
        if found is None:
            raise Problem("NOT_FOUND", f"Delivery {delivery_id} not found.")
        called = _request(found, api_key_id, await self._find_call(merchant_id, found["request_id"]))
        entries = [] if transfer is None else ledger_entries(transfer)
        explained = [_attempt(record) for record in attempts]
        state = _state(found, attempts[-1] if attempts else None, earlier)
        return DeliveryExplanation(
            delivery_id=found["id"],
            status=found["status"],
            traceparent=found["traceparent"] or derive(found["request_id"]),
            request=called,
            change=_change(found),
            ledger_entries=entries,
            endpoint=_endpoint(found),
            attempts=explained,
            next_attempt=(following := _next_attempt(found, state)),
            summary=summarize(found, called, entries, explained, following),
        )

    async def _find_call(self, merchant_id: str, request_id: str) -> JournalEntry | None:
        """Return the first call with this request id that the journal still has and that was not a replay."""

        def matches(entry: JournalEntry) -> bool:
            return entry.request_id == request_id and entry.api_key_id is not None and not entry.replayed and entry.status < 400

        try:
            calls = await self._journal.page(merchant_id, MAX_ID, 100, matches)
        except Problem:  # Redis is down. Everything else is known.
            return None
        return calls[-1] if calls else None


def _request(record: Mapping[str, Any], api_key_id: str | None, call: JournalEntry | None) -> ExplainedRequest:
    if call is None:
        nothing = dict.fromkeys(("journal_id", "at", "method", "path", "status", "idempotency_key"))
        return ExplainedRequest(request_id=record["request_id"], api_key_id=api_key_id, **nothing)
    return ExplainedRequest(
        request_id=call.request_id,
        api_key_id=api_key_id or call.api_key_id,
        journal_id=call.id,
        at=call.at,
        method=call.method,
        path=call.path,
        status=call.status,
        idempotency_key=call.idempotency_key,
    )


def _change(record: Mapping[str, Any]) -> ExplainedChange:
    return shown(
        ExplainedChange,
        record,
        event_type=record["type"],
        at=render(record["created_at"]),
        version=None if record["change"] is None else record["change"] + 1,
        source=record["from_status"],
        to=record["to_status"],
    )


def _endpoint(record: Mapping[str, Any]) -> ExplainedEndpoint | None:
    if record["endpoint_status"] is None:
        return None
    url, status = redaction.address(record["url"]), record["endpoint_status"]
    return shown(ExplainedEndpoint, record, id=record["endpoint_id"], url=url, status=status)


def _attempt(record: Mapping[str, Any]) -> ExplainedAttempt:
    if record["status"] is None:
        detail = f"it failed: {record['error']}" + (f" ({record['error_class']})" if record["error_class"] else "")
    else:
        detail = f"the endpoint responded with {record['status']} after {record['duration_ms']} ms"
        if record["error"] is not None:
            detail += f", but {record['error']}"
    if record["manual"]:
        detail += "; someone asked for this attempt"
    if record["fault_kind"] is not None:
        detail += f"; the fault {record['fault_id']} of kind `{record['fault_kind']}` hit it"
    detail = f"Attempt {record['attempt']} at {render(record['at'])}: {detail}."
    return shown(ExplainedAttempt, record, manual=bool(record["manual"]), detail=detail)


def _state(record: Mapping[str, Any], last: Mapping[str, Any] | None, earlier: str | None) -> DeliveryState:
    endpoint = None
    if record["endpoint_status"] is not None:
        endpoint = EndpointState(
            status=record["endpoint_status"],
            disabled_reason=record["disabled_reason"],
            retry_profile=record["retry_profile"],
            is_relayed=bool(record["relayed"]),
            rate_limit=record["rate_limit"],
            rate_free_at=record["rate_free_at"],
        )
    return DeliveryState(
        id=record["id"],
        status=record["status"],
        scheduled=record["scheduled"],
        due=record["next_attempt_at"],
        changed_at=record["updated_at"],
        is_resent=bool(record["resent"]),
        leased_until=record["leased_until"],
        last=None if last is None else _last(last),
        endpoint=endpoint,
        earlier_event=earlier,
    )


def _last(record: Mapping[str, Any]) -> LastAttempt:
    signed_at = record["signed_at"]
    return LastAttempt(
        number=record["attempt"],
        at=record["at"],
        status=record["status"],
        duration=timedelta(milliseconds=record["duration_ms"]),
        is_postponed=not record["is_sent"] and record["fault_kind"] in _POSTPONING,
        fault_kind=record["fault_kind"],
        retry_after=record["retry_after"],
        signed_at=None if signed_at is None else datetime.fromtimestamp(signed_at, UTC),
    )


def _next_attempt(record: Mapping[str, Any], state: DeliveryState) -> NextAttempt:
    reason, detail = explain_next(state)
    holds = explain_holds(state, Clock(record["clock_frozen_at"], record["clock_offset"]), datetime.now(UTC))
    at = render(state.due) if state.status == "PENDING" and state.due is not None else None
    return NextAttempt(at, reason, detail, [Hold(*hold) for hold in holds])
