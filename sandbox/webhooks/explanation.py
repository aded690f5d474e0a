"""The explanation of a delivery, as the API shows it and in sentences."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from sandbox.domain import redaction
from sandbox.domain.clock import render
from sandbox.domain.enumerations import DeliveryStatus, EndpointStatus, ErrorClass, HoldReason, NextReason, RetryProfile
from sandbox.domain.ledger_entry import LedgerEntry


class ExplainedRequest(msgspec.Struct, kw_only=True):
    """The API call that caused the change. Once the journal has dropped the call, the fields from `journal_id` on are null."""

    request_id: str
    api_key_id: str | None
    journal_id: str | None
    """Its id in `GET /sandbox/v1/requests`."""
    at: str | None
    """The host's time."""
    method: str | None
    path: str | None
    status: int | None
    idempotency_key: str | None


class ExplainedChange(msgspec.Struct, kw_only=True, rename={"source": "from"}):
    """The change that the event reports. A bulk credit's event has no payout."""

    event_id: str
    event_type: str
    at: str
    payout_id: str | None
    version: int | None
    """The payout's version after the change."""
    source: str | None
    to: str | None
    cause: str
    actor: str | None
    scenario: str | None
    step: int | None


class ExplainedEndpoint(msgspec.Struct, kw_only=True):
    """The endpoint as it is now."""

    id: str
    url: Annotated[str, redaction.ADDRESS]
    status: EndpointStatus
    disabled_reason: str | None
    retry_profile: RetryProfile
    ordered: bool


class ExplainedAttempt(msgspec.Struct, kw_only=True):
    """One attempt. `detail` says in words what happened."""

    attempt: int
    at: str
    manual: bool
    status: int | None
    error: str | None
    error_class: ErrorClass | None
    fault_id: str | None
    fault_kind: str | None
    duration_ms: int
    detail: str


class Hold(msgspec.Struct):
    """Something that a due attempt waits for."""

    reason: HoldReason
    detail: str


class NextAttempt(msgspec.Struct):
    """When the next attempt is due, and why then; `at` is null if none is scheduled. `holds` is what else it waits for."""

    at: str | None
    reason: NextReason
    detail: str
    holds: list[Hold]


class DeliveryExplanation(msgspec.Struct, kw_only=True):
    """The path from the API call to a delivery. `summary` tells it in sentences, in order."""

    delivery_id: str
    status: DeliveryStatus
    traceparent: str
    request: ExplainedRequest
    change: ExplainedChange
    ledger_entries: list[LedgerEntry]
    """The entries of the change's transfer; empty if no money moved."""
    endpoint: ExplainedEndpoint | None
    """Null if it was deleted."""
    attempts: list[ExplainedAttempt]
    """The newest 100, oldest first."""
    next_attempt: NextAttempt
    summary: list[str]


def summarize(
    record: Mapping[str, Any],
    request: ExplainedRequest,
    entries: Sequence[LedgerEntry],
    attempts: Sequence[ExplainedAttempt],
    following: NextAttempt,
) -> list[str]:
    """Return the explanation in sentences. `record` is the row of the delivery, its event and its endpoint."""
    return [
        _tell_request(request),
        _tell_change(record),
        _tell_transfer(entries),
        f"The event {record['event_id']} ({record['type']}) goes to the endpoint {record['endpoint_id']}"
        + (f" at {redaction.address(record['url'])}." if record["url"] is not None else ", which was deleted since."),
        *(attempt.detail for attempt in attempts),
        following.detail,
        *(hold.detail for hold in following.holds),
    ]


def _tell_request(request: ExplainedRequest) -> str:
    parts = [f"request id {request.request_id}"]
    if request.idempotency_key is not None:
        parts.append(f"idempotency key {request.idempotency_key}")
    if request.api_key_id is not None:
        parts.append(f"API key {request.api_key_id}")
    known = ", ".join(parts)
    if request.method is None:
        return f"The request ({known}) caused it. The journal does not have this request."
    return f"{request.method} {request.path} ({known}) caused it, and was answered with {request.status}."


def _tell_change(record: Mapping[str, Any]) -> str:
    if record["payout_id"] is None:
        happened = "was made as a sample" if record["cause"] == "api" else "happened"
        return f"At {render(record['created_at'])}, the event {record['type']} {happened}."
    moved = (
        f"was created in {record['to_status']}"
        if record["from_status"] is None
        else f"went from {record['from_status']} to {record['to_status']}"
    )
    by = {
        "api": "by the request",
        "ipn": "by the bank's callback",
        "simulation": "by a simulation",
        "worker": f"by the scenario `{record['scenario']}`"
        if record["step"] is None
        else f"by step {record['step']} of the scenario `{record['scenario']}`",
    }.get(record["cause"], f"by {record['cause']}")
    version = record["change"] + 1
    return f"At {render(record['created_at'])}, the payout {record['payout_id']} {moved}, {by}. This is its version {version}."


def _tell_transfer(entries: Sequence[LedgerEntry]) -> str:
    if not entries:
        return "No money moved."
    credit, debit = entries
    return (
        f"The transfer {credit.transfer_id} ({credit.reason}) moved {credit.amount} from {debit.account}, which then had "
        f"{debit.balance_after}, to {credit.account}, which then had {credit.balance_after}."
    )
