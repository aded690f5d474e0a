"""The results of calls: frozen dataclasses. Amounts are Decimal, times are datetime in UTC."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

ErrorClass = Literal[
    "BLOCKED_ADDRESS",
    "CONNECTION_CLOSED",
    "CONNECTION_REFUSED",
    "CONNECTION_RESET",
    "CONNECT_FAILED",
    "DNS",
    "DNS_TIMEOUT",
    "FAULT",
    "HTTP_STATUS",
    "INTERNAL",
    "INVALID_REQUEST",
    "INVALID_RESPONSE",
    "INVALID_URL",
    "REDIRECT",
    "SECRET",
    "TIMEOUT",
    "TLS",
]
EventPattern = Literal[
    "*",
    "bulk_credit.*",
    "bulk_credit.completed",
    "payout.*",
    "payout.cancelled",
    "payout.created",
    "payout.failed",
    "payout.in_review",
    "payout.on_hold",
    "payout.processing",
    "payout.reinitiated",
    "payout.rejected",
    "payout.requested",
    "payout.retrying",
    "payout.returned",
    "payout.succeeded",
]
EventType = Literal[
    "bulk_credit.completed",
    "payout.cancelled",
    "payout.created",
    "payout.failed",
    "payout.in_review",
    "payout.on_hold",
    "payout.processing",
    "payout.reinitiated",
    "payout.rejected",
    "payout.requested",
    "payout.retrying",
    "payout.returned",
    "payout.succeeded",
]
PayoutStatus = Literal[
    "CANCELLED",
    "FAILED",
    "IN_REVIEW",
    "ON_HOLD",
    "PENDING",
    "PROCESSING",
    "REJECTED",
    "REQUESTED",
    "RETRY",
    "RETURNED",
    "SUCCESS",
]
SigningScheme = Literal["custom", "github", "stripe", "v1", "v1a"]
WalletCode = Literal["EASYPAISA", "JAZZCASH", "NAYAPAY", "SADAPAY"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedBulkCredit:
    """An accepted bulk credit."""

    activity_id: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkCreditCounts:
    """Row counts by outcome. Duplicates are also counted as invalid."""

    total: int
    invalid: int
    duplicates: int
    succeeded: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkCredit:
    """A bulk credit. The counts appear both in `counts` and as separate fields, and grow while it is processed."""

    activity_id: str
    status: str
    total: int
    invalid: int
    duplicates: int
    succeeded: int
    failed: int
    counts: BulkCreditCounts
    created_at: datetime
    completed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key without the key itself."""

    id: str
    role: str
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCheck:
    """The result of one check. `problems` lists the first few violations, with their ids."""

    name: str
    ok: bool
    detail: str
    problems: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """All checks of a merchant's ledger; `ok` if all passed."""

    ok: bool
    checks: list[AuditCheck]


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """A merchant's balance: `balance` = `locked_balance` + `available_balance`."""

    currency: str
    balance: Decimal
    locked_balance: Decimal
    available_balance: Decimal
    version: int
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayedDelivery:
    """A claimed delivery, ready to send."""

    delivery_id: str
    event_id: str
    event_type: str
    attempt: int
    manual: bool
    headers: dict[str, str]
    body: str
    copies: int
    delay_ms: int
    lease: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The claimed deliveries, the earliest first. Do not start to send one after its lease has ended."""

    data: list[RelayedDelivery]
    lease_ends_after_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutStep:
    """A payout's status change that fell due."""

    kind: Literal["payout_step"]
    at: datetime
    payout_id: str
    event_id: str
    from_: str | None = field(metadata={"name": "from"})
    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt:
    """A webhook delivery attempt that fell due. `status` is the HTTP status, null without a response."""

    kind: Literal["delivery_attempt"]
    at: datetime
    delivery_id: str
    event_id: str
    endpoint_id: str
    attempt: int
    outcome: Literal["succeeded", "failed", "gone"]
    status: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockRun:
    """The result of advancing the clock.

    `steps` counts the due steps that were run; `ran` lists the first 1000 in order. If `complete` is true, all due
    work is done
    and committed. Otherwise `stopped_because` says why the advance stopped at `now`; repeat the request to
    continue.
    """

    now: datetime
    frozen: bool
    frozen_at: datetime | None
    offset_seconds: float | None
    from_: str = field(metadata={"name": "from"})
    complete: bool
    stopped_because: str | None
    steps: int
    ran: list[PayoutStep | DeliveryAttempt]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockState:
    """A merchant's clock. `offset_seconds` says how far it is ahead of the host's clock; null while frozen."""

    now: datetime
    frozen: bool
    frozen_at: datetime | None
    offset_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EqFilter:
    """The field equals the value.

    Numbers, and strings that are written like numbers, compare as decimals: `"1500.00"` equals `1500`. A missing
    field equals
    null.
    """

    op: Literal["eq"]
    field: str
    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NeFilter:
    """The field does not equal the value, or is missing."""

    op: Literal["ne"]
    field: str
    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InFilter:
    """The field equals one of the values."""

    op: Literal["in"]
    field: str
    value: list[str | int | float | bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GteFilter:
    """The field is at least this number or string. A missing field is not. RFC 3339 times in UTC are in order as
    strings.
    """

    op: Literal["gte"]
    field: str
    value: str | int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class LteFilter:
    """The field is at most this number or string. A missing field is not."""

    op: Literal["lte"]
    field: str
    value: str | int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixFilter:
    """The field is a string that begins with the value."""

    op: Literal["prefix"]
    field: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistsFilter:
    """The field is present (`true`, the default), or missing or null (`false`)."""

    op: Literal["exists"]
    field: str
    value: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomSigning:
    """How to sign when an endpoint's `signing` is `custom`.

    `template` is the signed content: its placeholders `{timestamp}` (Unix seconds), `{id}` (the webhook-id) and
    `{body}` are
    replaced, everything else is taken literally. The signature is written into `header`, after `prefix`, in which
    `{timestamp}` is replaced too. The timestamp is sent in `timestamp_header`; without one, if the template needs
    it and the
    prefix does not contain it, in webhook-timestamp.
    """

    header: str
    algorithm: Literal["sha256", "sha512"]
    encoding: Literal["base64", "hex"]
    template: str
    """What is signed. `{timestamp}`, `{id}` (the webhook-id) and `{body}` are replaced."""
    prefix: str | None = None
    """What precedes the signature in the header. `{timestamp}` is replaced."""
    timestamp_header: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChange:
    """A change of an endpoint's status. `at` is in the merchant's time."""

    at: datetime
    status: str
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedEndpoint:
    """A webhook endpoint with its secret. The API returns the secret only once.

    With `v1a` the secret is null, because receivers need the public key only.
    """

    id: str
    url: str
    event_types: list[str]
    filters: list[EqFilter | NeFilter | InFilter | GteFilter | LteFilter | PrefixFilter | ExistsFilter]
    signing: str
    custom_signing: CustomSigning | None
    public_key: str | None
    signing_time: str
    retry_profile: str
    ordered: bool
    rate_limit: int | None
    max_in_flight: int | None
    description: str
    relayed: bool
    status: str
    disabled_reason: str | None
    failing_since: str | None
    history: list[StatusChange]
    created_at: datetime
    updated_at: datetime
    secret: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Payout:
    """A payout. Amounts are decimal strings with two decimal places; times are RFC 3339."""

    id: str
    merchant_reference: str
    amount: Decimal
    currency: Literal["PKR"]
    dest_type: Literal["BANK", "WALLET"]
    bank_code: str | None
    wallet_code: str | None
    account_number: str
    account_title: str | None
    status: PayoutStatus
    scenario: str
    failure_code: str | None
    failure_reason: str | None
    psp_reference: str | None
    attempts: int
    version: int
    """1 at creation, plus 1 with each change. Of two copies, the one with the higher version is newer."""
    metadata: dict[str, str]
    user_id: str | None
    created_at: datetime
    updated_at: datetime
    processed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedPayout:
    """The result of a batch item that was created."""

    status: Literal[201]
    payout: Payout


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a user's payouts go."""

    dest_type: str
    bank_code: str | None
    wallet_code: str | None
    account_number: str


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user of a merchant, with a wallet."""

    id: str
    name: str
    external_id: str | None
    vendor_user_id: str
    destination: Destination | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedUser:
    """The result of a batch item that was created."""

    status: Literal[201]
    user: User


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A vendor's row that could not be parsed, as received."""

    id: str
    raw: str
    reason: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The delivery of an event to one endpoint. The endpoint may have been deleted since."""

    id: str
    event_id: str
    event_type: str
    endpoint_id: str
    status: str
    attempt_count: int
    next_attempt_at: datetime | None
    created_at: datetime
    updated_at: datetime


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
class LedgerEntry:
    """One side of a transfer, on one of the merchant's accounts (AVAILABLE, LOCKED) or on a user's WALLET."""

    id: str
    transfer_id: str
    account: Literal["AVAILABLE", "LOCKED", "WALLET"]
    direction: Literal["DEBIT", "CREDIT"]
    amount: Decimal
    balance_after: Decimal
    reason: str
    payout_id: str | None
    description: str
    created_at: datetime


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
    address no
    `dns_ms`, and plain HTTP no `tls_ms`. The phase in which an attempt failed is the last one that is not null.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """A bank in `GET /directory`."""

    aliases: list[str]
    code: str
    iban_code: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    """A wallet in `GET /directory`."""

    code: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """The body of `GET /directory`."""

    banks: list[Bank]
    wallets: list[Wallet]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """Whether all due work is done, and the steps that were run. Steps that workers had already started are not
    listed.
    """

    drained: bool
    now: datetime
    stopped_because: str | None
    steps: int
    ran: list[PayoutStep | DeliveryAttempt]


@dataclass(frozen=True, slots=True, kw_only=True)
class DueStep:
    """A payout's scheduled status change, or several that happen at the same time.

    `to` is the status after them, null if nothing will change because the payout cannot continue its scenario.
    `description`
    names every status on the way.
    """

    kind: Literal["payout_step"]
    due_at: datetime
    payout_id: str
    from_: PayoutStatus = field(metadata={"name": "from"})
    to: PayoutStatus | None
    failure_code: str | None
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DueDelivery:
    """A scheduled attempt at a webhook delivery. `attempt` is its number. `payout_id` is null for an event without a
    payout.
    """

    kind: Literal["delivery_attempt"]
    due_at: datetime
    delivery_id: str
    event_id: str
    event_type: EventType
    payout_id: str | None
    endpoint_id: str
    url: str
    attempt: int
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DueWork:
    """What happens next, soonest first. Of what is due at the same time, payouts come first.

    A request for `clock/advance` to an item's `due_at` runs it. There are no further pages: `next_cursor` is always
    null, and
    `has_more` says whether there is more than `limit`.
    """

    data: list[DueStep | DueDelivery]
    has_more: bool
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A webhook endpoint."""

    id: str
    url: str
    event_types: list[str]
    filters: list[EqFilter | NeFilter | InFilter | GteFilter | LteFilter | PrefixFilter | ExistsFilter]
    signing: str
    custom_signing: CustomSigning | None
    public_key: str | None
    signing_time: str
    retry_profile: str
    ordered: bool
    rate_limit: int | None
    max_in_flight: int | None
    description: str
    relayed: bool
    status: str
    disabled_reason: str | None
    failing_since: str | None
    history: list[StatusChange]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event: everything in its webhook's body (`data` is identical byte for byte), and the payout concerned."""

    id: str
    type: str
    timestamp: datetime
    livemode: Literal[False]
    previous_status: str | None
    created_at: datetime
    payout_id: str | None
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPreview:
    """A recent event, and whether the endpoint would have received it."""

    event_id: str
    type: str
    matches: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventWithDeliveries:
    """An event and its deliveries."""

    id: str
    type: str
    timestamp: datetime
    livemode: Literal[False]
    previous_status: str | None
    created_at: datetime
    payout_id: str | None
    data: Any
    deliveries: list[Delivery]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedStep:
    """One expected change, `after_seconds` from the previous one and `at` seconds from the creation (null: uncertain).

    `probability` is the chance that a payout takes the step if it reaches it; `overall_probability` is the chance
    that it
    reaches and takes it.
    """

    step: int | None
    to: str
    after_seconds: float
    at: float | None
    failure_code: str | None
    event_type: str
    money: str | None
    probability: float
    overall_probability: float
    wait: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The scenario that a payout would follow, the conditions that chose it, and the expected changes.

    `rule_id` is null for a built-in scenario, and for the request's `rule`.
    """

    scenario: str
    source: Literal["own", "builtin"]
    rule_id: str | None
    matched_by: list[str]
    steps: list[ExplainedStep]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault. `remaining` is the number of hits left (null: unlimited); `matches` counts all matches, hits or not."""

    id: str
    target: str
    kind: str
    match: dict[str, str]
    parameters: dict[str, float]
    probability: float
    count: int | None
    seed: int | None
    matches: int
    hits: int
    remaining: int | None
    expires_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """A call to the vendor and its outcome: RUNNING, SUCCEEDED or FAILED."""

    id: str
    url: str
    page: int
    at: datetime
    outcome: str
    status: int | None
    rows: int | None
    new_rows: int | None
    dead_letters: int | None
    duration_ms: int | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedEndpoint:
    """A webhook endpoint of an imported world. `secret` is null if the endpoint kept its secret, or signs with
    `public_key`.
    """

    id: str
    url: str
    secret: str | None
    public_key: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """An imported world: its rows, its clock, and its endpoints, with the secrets of those that got a new one."""

    imported: bool
    rows: int
    now: datetime
    frozen: bool
    endpoints: list[ImportedEndpoint]


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkCreditItem:
    """A row of the file."""

    line: int
    uuid: str
    amount: str
    status: str
    error: str | None
    transfer_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultNote:
    """A fault that hit, as the journal shows it."""

    id: str
    kind: str
    seed: int | None
    counter: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """A call in the journal. Bodies are cut to 4000 bytes; anything that might be a key or a secret reads
    `[redacted]`.

    `traceparent` is as sent, or the one that the sandbox started.
    """

    id: str
    at: datetime
    method: str
    path: str
    query: str
    status: int
    duration_ms: float
    request_id: str
    traceparent: str
    idempotency_key: str | None
    replayed: bool
    api_key_id: str | None
    request_headers: dict[str, str]
    request_body: str
    response_body: str
    fault: FaultNote | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverTestSummary:
    """How many of the checks had each outcome so far. `judged_by` says whether a probe showed the effects."""

    total: int
    passed: int
    failed: int
    skipped: int
    advice: int
    judged_by: Literal["statuses", "statuses and effects"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedReceiverTest:
    """A test of a webhook receiver without its findings. It is PASSED if no check failed.

    `error` says why a test did not complete; such a test is FAILED.
    """

    id: str
    status: Literal["FAILED", "PASSED", "RUNNING"]
    url: str
    probe_url: str | None
    signing: str
    summary: ReceiverTestSummary
    error: str | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Merchant:
    """A merchant, as the operator sees it."""

    merchant_id: str
    name: str
    seed: int | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApiKey:
    """A new API key. The key itself is shown only once."""

    id: str
    api_key: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMerchant:
    """A new merchant with its secrets, which are not shown again.

    `webhook_secret` belongs to the merchant's first endpoint: the one at `webhook_url`, or else the first one it
    creates.
    """

    merchant_id: str
    api_key: str
    webhook_secret: str
    ipn_secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Covers:
    """The rows that a statistic covers: the newest ones.

    `since` is the creation time of the oldest of them, null without rows. `is_complete` says that there are no
    older rows.
    """

    rows: int
    since: str | None
    is_complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusTotal:
    """The number and the total amount of the payouts in a status."""

    status: PayoutStatus
    count: int
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureTotal:
    """The number and the total amount of the payouts with a failure code."""

    failure_code: str
    count: int
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCount:
    """How many of all the merchant's payouts are in a status that is not final. If `is_capped` is true, there are
    more.
    """

    status: PayoutStatus
    count: int
    is_capped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutStatistics:
    """Payouts by their current status (every status, also those without payouts) and by failure code (most frequent
    first).

    `open` does not depend on `covers`: it counts all payouts that are not final.
    """

    covers: Covers
    by_status: list[StatusTotal]
    by_failure_code: list[FailureTotal]
    open: list[OpenCount]


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancePoint:
    """The balance after a change, until the next point."""

    at: datetime
    available: Decimal
    locked: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceStatistics:
    """The balance over time, oldest first; the last point is the current balance. `covers` counts transfers."""

    covers: Covers
    currency: str
    points: list[BalancePoint]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryCount:
    """The number of webhook deliveries in a status."""

    status: Literal["FAILED", "PAUSED", "PENDING", "SUCCEEDED"]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """The duration of attempts in milliseconds: half of them took at most `p50_ms`, 95 % at most `p95_ms`."""

    p50_ms: int
    p95_ms: int
    max_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptBucket:
    """The attempts from `at` on, until the next bucket. `latency` is null without attempts."""

    at: datetime
    succeeded: int
    failed: int
    latency: Latency | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStatistics:
    """The attempts at the newest deliveries: of each at most the newest ten, and at most 2000 in all.

    Attempts that a fault prevented from being sent do not count. `since` is the time of the oldest attempt, null
    without
    attempts. `success_rate` is from 0 to 1. `buckets` are of equal width, oldest first, without gaps.
    """

    since: str | None
    succeeded: int
    failed: int
    success_rate: float | None
    latency: Latency | None
    bucket_seconds: int | None
    buckets: list[AttemptBucket]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryStatistics:
    """Webhook deliveries by their current status (every status), and the attempts at them."""

    covers: Covers
    by_status: list[DeliveryCount]
    attempts: AttemptStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What happened lately and what is in progress. `now` is the merchant's time. All of it is from one moment."""

    now: datetime
    payouts: PayoutStatistics
    balance: BalanceStatistics
    deliveries: DeliveryStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionBody:
    """A request's body: only a simulation has a `status`. A `failure_code` can be added."""

    status: PayoutStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutAction:
    """A request that can change a payout now.

    `operation` is the operation's id in this document, `body` its body, and `access` the role that its key needs
    (an admin key
    can do everything). `failure_codes` are the known codes that `body.failure_code` may have: an unknown code of
    your own is
    accepted too. The list is empty if the body takes no code. `default_failure_code` is the payout's code if the
    body has none.
    """

    operation: Literal["approve_payout", "cancel_payout", "reinitiate_payout", "reject_payout", "simulate_payout"]
    body: ActionBody
    to: PayoutStatus
    failure_codes: list[str]
    default_failure_code: str | None
    access: Literal["admin", "member"]
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutActions:
    """A payout's status, and the requests that can change it now: the merchant's own first, then simulations."""

    payout_id: str
    status: PayoutStatus
    actions: list[PayoutAction]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """The error of one field of the request."""

    field: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """RFC 9457 problem details, with this API's extensions."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[FieldError] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The response of `/health/ready` if every part is available."""

    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRequest:
    """The request that decided a check.

    `curl` repeats it, with the requests before it if they matter. The secret is not in it. A receiver that checks
    timestamps
    accepts its signature for five minutes.
    """

    summary: str
    method: str
    url: str
    headers: dict[str, str]
    body: str
    curl: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedAnswer:
    """The receiver's answer. Without one, `status` is null and `error` says why."""

    status: int | None
    headers: dict[str, str]
    body: str
    duration_ms: float
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cure:
    """How to fix a receiver: in words, and in code in five languages."""

    summary: str
    python: str
    node: str
    php: str
    go: str
    java: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    `why` says what was observed, unless the check passed, and why it matters. `sent` and `received` are null if
    nothing was
    sent.
    """

    name: str
    outcome: Literal["advice", "failed", "passed", "skipped"]
    sent: SentRequest | None
    received: ReceivedAnswer | None
    why: str
    cure: Cure


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverTest:
    """A test of a webhook receiver. While it runs, `checks` has those that are done. It is PASSED if no check failed.

    `error` says why a test did not complete; such a test is FAILED.
    """

    id: str
    status: Literal["FAILED", "PASSED", "RUNNING"]
    url: str
    probe_url: str | None
    signing: str
    summary: ReceiverTestSummary
    error: str | None
    created_at: datetime
    finished_at: datetime | None
    checks: list[Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class SalePayment:
    """A payment for a sale. `kind` is ADVANCE or FINAL. A negative FINAL takes money back; one of 0.00 moves no money."""

    kind: Literal["ADVANCE", "FINAL"]
    amount: Decimal
    transfer_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """A sale. Its payment amounts are null until they are paid.

    `attempts` counts all attempts to pay its advance or final. `last_error` says why the last one failed; it is
    null if it
    succeeded.
    """

    id: str
    user_id: str
    brand: str
    earning: Decimal
    status: Literal["PENDING", "APPROVED", "DECLINED"]
    advance_amount: Decimal | None
    final_amount: Decimal | None
    payments: list[SalePayment]
    attempts: int
    last_error: str | None
    created_at: datetime
    reconciled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """The reconciled sales, in the order of the request."""

    reconciled: int
    sales: list[Sale]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How many events are sent again, also by type."""

    count: int
    by_type: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedItem:
    """A refused item of a batch. Its error paths start with its position, such as `payouts[2].amount`."""

    status: int
    problem: Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The number of dead letters that could be parsed this time, and the number that remain."""

    replayed: int
    remaining: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What became of a reported result.

    `recorded`: the delivery has a new status. `late`: its lease had passed to another attempt, so the result is
    only logged.
    `repeated`: it was recorded before. `unknown`: there is no such delivery any more, or the lease is not this
    listener's.
    """

    outcome: Literal["late", "recorded", "repeated", "unknown"]
    delivery_id: str | None
    event_id: str | None
    event_type: str | None
    attempt: int | None
    at: datetime | None
    delivery_status: str | None
    next_attempt_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedTotal:
    """A user with payout requests waiting for approval."""

    user_id: str
    total_requested: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """A merchant after a reset."""

    reset: bool
    balance: Balance


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A restored snapshot, and the merchant's clock after the restore."""

    restored: bool
    id: str
    name: str
    rows: int
    now: datetime
    frozen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The response of `/`."""

    name: str
    version: str
    links: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedSecret:
    """The new secret of an endpoint, which is shown only here. With `v1a` it is null, and `public_key` is there
    instead.
    """

    secret: str | None
    public_key: str | None
    previous_expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The result of a run: sales paid, sales whose attempt failed, and the net total."""

    paid: int
    failed: int
    total_amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioMatch:
    """The conditions of a scenario. A payout must meet all of them."""

    suffix: str | None = None
    account_number: str | None = None
    bank_code: str | None = None
    wallet_code: str | None = None
    amount_from: str | None = None
    amount_to: str | None = None
    user_id: str | None = None
    metadata: dict[str, str] | None = None
    scenario_header: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioStep:
    """One status change of a scenario, `after` seconds of the merchant's time from the previous one."""

    to: str
    after: float
    failure_code: str | None
    psp_reference: str | None
    probability: float
    wait: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioRule:
    """A scenario: one of the merchant's own rules, or a built-in scenario, which has no id and no position."""

    id: str | None
    name: str
    source: Literal["own", "builtin"]
    match: ScenarioMatch
    steps: list[ScenarioStep]
    position: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamplePayout:
    """The fields of a payout that follows a scenario, so far as the scenario's conditions name them.

    `iban` is the same account as an IBAN; null in a wallet. `needs` are conditions that the other fields do not
    meet: of
    user_id, metadata and scenario_header.
    """

    amount: str
    bank_code: str | None
    wallet_code: str | None
    account_number: str
    iban: str | None
    needs: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """A scenario with a payout that follows it.

    `header` selects the scenario for any payout. `refusal` is why POST /verify-account finds the account not valid,
    or null.
    `sale_payments` says whether a user with this account receives advances and final payments: paid, failed or
    random.
    """

    scenario: ScenarioRule
    example: ExamplePayout
    steps: list[ExplainedStep]
    header: str
    refusal: str | None
    sale_payments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureMeaning:
    """A failure code, and what it means."""

    code: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioCatalogue:
    """All scenarios in the order in which they are tried, each with an example, and all failure codes."""

    scenarios: list[CatalogueEntry]
    failure_codes: list[FailureMeaning]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A merchant's settings. `rate_limit` is in requests per minute, `approvals_expire_after` in seconds of its clock.

    null means: no review by amount, no rate limit, approvals never expire.
    """

    default_scenario: Literal["FAILED", "PENDING", "SUCCESS"]
    review_threshold: Decimal | None
    rate_limit: int | None
    approvals_expire_after: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningExample:
    """How a webhook is signed. No secret is in it; keys are shown by their fingerprints."""

    signed_content: str
    headers: dict[str, str]
    steps: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot: `rows` in all tables, `size` in bytes before compression, `clock_at` the merchant's time at the
    snapshot.
    """

    id: str
    name: str
    created_at: datetime
    clock_at: datetime
    rows: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The source of transactions. Without a `url`, it is the sandbox's own feed. Header values are not shown."""

    url: str | None
    header_names: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSummary:
    """The totals of a user's wallet.

    `balance` = earned + credited + advances + finals − spent − payout_approved − payout_paid. `available` = balance
    −
    payout_requested: the amount that can still be paid out.
    """

    user_id: str
    currency: str
    balance: Decimal
    earned: Decimal
    spent: Decimal
    credited: Decimal
    advances: Decimal
    finals: Decimal
    payout_requested: Decimal
    payout_approved: Decimal
    payout_paid: Decimal
    available: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One status change of a payout.

    `actor` is the id of the API key that requested it. `request_id` is the request that caused it; for a change
    made by
    the worker, it is the last request that set the payout in motion. `traceparent` is the trace of the request that
    created
    the payout.
    """

    at: datetime
    from_: PayoutStatus | None = field(metadata={"name": "from"})
    to: PayoutStatus
    cause: Literal["api", "worker", "ipn", "simulation"]
    actor: str | None
    request_id: str
    scenario: str | None
    step: int | None
    ledger_transfer_id: str | None
    event_id: str
    traceparent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A transaction of a user's wallet.

    A negative `amount` reverses an earlier transaction of the same type. `transfer_id` is the wallet's transfer;
    PAYOUT and
    PAID_OUT have a `payout_id` instead.
    """

    id: str
    user_id: str
    type: Literal["EARNED", "SPENT", "CREDITED", "ADVANCE", "FINAL", "PAYOUT", "PAID_OUT"]
    amount: Decimal
    reference: str | None
    transfer_id: str | None
    payout_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpaidRequests:
    """The amount that a user has requested but not been paid."""

    user_id: str
    requested_payout: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class UserBalance:
    """The balance of a user's wallet, and the part of it that can still be paid out."""

    user_id: str
    balance: Decimal
    available: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorBalance:
    """A user's totals according to the vendor: `balance` = earned − spent − paid_out."""

    user_id: str
    balance: Decimal
    earned: Decimal
    spent: Decimal
    payout: Decimal
    paid_out: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorTransaction:
    """One row of the feed. `userId` is a string (`"074092"` keeps its zero); `type` is earned, spent, payout or
    paid_out.

    A payout that ends unpaid adds a `payout` row with the negative amount; a returned payout also adds a
    negative `paid_out` row.
    """

    id: str
    user_id: str = field(metadata={"name": "userId"})
    created_at: datetime = field(metadata={"name": "createdAt"})
    type: Literal["earned", "spent", "payout", "paid_out"]
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorMeta:
    """The position of a page in the whole result."""

    total_items: int = field(metadata={"name": "totalItems"})
    item_count: int = field(metadata={"name": "itemCount"})
    items_per_page: int = field(metadata={"name": "itemsPerPage"})
    total_pages: int = field(metadata={"name": "totalPages"})
    current_page: int = field(metadata={"name": "currentPage"})


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorPage:
    """One page of the feed, oldest first."""

    items: list[VendorTransaction]
    meta: VendorMeta


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The response to `POST /verify-account`."""

    valid: bool
    account_title: str | None
    reason: str | None
    dest_type: Literal["BANK", "WALLET"]
    bank_code: str | None
    wallet_code: str | None
    account_number: str
