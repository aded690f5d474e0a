"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from psp_sandbox.client.literals import ErrorClass
from psp_sandbox.client.models.shared import (
    LedgerEntry,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRequest:
    """The request as it was sent."""

    headers: dict[str, str]
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptResponse:
    """The response, possibly truncated."""

    headers: dict[str, str]
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """How long each phase of an attempt took, in milliseconds.

    A phase that did not happen is null. A reused connection has no `dns_ms`, `connect_ms` or `tls_ms`, a numeric
    address no `dns_ms`, and plain HTTP no `tls_ms`. The phase in which an attempt failed is the last one that is
    not null.
    """

    dns_ms: float | None
    """The look-up of the host name; close to 0 if the addresses are still known from a recent call."""
    connect_ms: float | None
    """From the first try to connect until the TCP connection is open, over all addresses of the host."""
    tls_ms: float | None
    """The TLS handshake."""
    first_byte_ms: float | None
    """From writing the request until the head of the response has arrived."""
    total_ms: int
    """The whole attempt, until the response's body has ended, rounded up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at a delivery; `at` is in the merchant's time. If `request` is null, nothing was sent."""

    attempt: int
    manual: bool
    at: datetime
    url: str
    fault_id: str | None
    fault_kind: str | None
    request: AttemptRequest | None
    status: int | None
    response: AttemptResponse | None
    error: str | None
    error_class: ErrorClass | None
    """Why the attempt failed; null if it succeeded. DNS: the name does not resolve. DNS_TIMEOUT: no name server
    responded. BLOCKED_ADDRESS: the address is private and not allowed, or a metadata service. CONNECTION_REFUSED,
    CONNECT_FAILED: no connection. TLS: the handshake failed, or the certificate is not valid. TIMEOUT: no complete
    response within 15 s. CONNECTION_CLOSED, CONNECTION_RESET: the connection ended before the response.
    INVALID_RESPONSE: not valid HTTP, or incomplete. REDIRECT: 3xx, which is never followed. HTTP_STATUS: another
    status outside 2xx. INVALID_URL, INVALID_REQUEST: no request is possible. FAULT: an injected fault prevented it.
    SECRET: the endpoint's secret cannot be decrypted. INTERNAL: an error of the sandbox.
    """
    duration_ms: int
    timings: Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedRequest:
    """The API call that caused the change. Once the journal has dropped the call, the fields from `journal_id` on are
    null.
    """

    request_id: str
    api_key_id: str | None
    journal_id: str | None
    at: datetime | None
    method: str | None
    path: str | None
    status: int | None
    idempotency_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedChange:
    """The change that the event tells of. A bulk credit's event has no payout."""

    event_id: str
    event_type: str
    at: datetime
    payout_id: str | None
    version: int | None
    from_: str | None = field(metadata={"name": "from"})
    to: str | None
    cause: str
    actor: str | None
    scenario: str | None
    step: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedEndpoint:
    """The endpoint as it is now."""

    id: str
    url: str
    status: Literal["DISABLED", "ENABLED"]
    disabled_reason: str | None
    retry_profile: Literal["fast", "standard"]
    ordered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedAttempt:
    """One attempt. `detail` says in words what happened."""

    attempt: int
    at: datetime
    manual: bool
    status: int | None
    error: str | None
    error_class: ErrorClass | None
    fault_id: str | None
    fault_kind: str | None
    duration_ms: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Something that a due attempt waits for."""

    reason: Literal["CAPACITY", "CLOCK_FROZEN", "EARLIER_EVENT", "ENDPOINT_DISABLED", "IN_PROGRESS", "LISTENER", "RATE_LIMIT"]
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NextAttempt:
    """When the next attempt is due, and why then; `at` is null if none is scheduled. `holds` is what else it waits
    for.
    """

    at: datetime | None
    reason: Literal[
        "CHANGED",
        "EARLIER_EVENT",
        "ENDPOINT_DELETED",
        "EXHAUSTED",
        "FAULT",
        "FIRST",
        "PAUSED",
        "RESENT",
        "RETRY_AFTER",
        "SCHEDULE",
        "SUCCEEDED",
    ]
    detail: str
    holds: list[Hold]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryExplanation:
    """The path from the API call to a delivery. `summary` tells it in sentences, in order."""

    delivery_id: str
    status: Literal["FAILED", "PAUSED", "PENDING", "SUCCEEDED"]
    traceparent: str
    request: ExplainedRequest
    change: ExplainedChange
    ledger_entries: list[LedgerEntry]
    endpoint: ExplainedEndpoint | None
    attempts: list[ExplainedAttempt]
    next_attempt: NextAttempt
    summary: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryWithAttempts:
    """A delivery and its newest attempts, oldest first."""

    id: str
    event_id: str
    event_type: str
    endpoint_id: str
    status: str
    attempt_count: int
    next_attempt_at: datetime | None
    created_at: datetime
    updated_at: datetime
    attempts: list[Attempt]
