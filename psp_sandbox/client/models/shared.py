"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal

from psp_sandbox.client.literals import PayoutStatus


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
class PayoutStep:
    """A payout's status change that fell due."""

    kind: Literal["payout_step"]
    at: datetime
    payout_id: str
    event_id: str
    from_: str | None = field(metadata={"name": "from"})
    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SaleAttempt:
    """An attempt to pay a sale that fell due. `error` says why it failed; null if it succeeded."""

    kind: Literal["sale_payment"]
    at: datetime
    sale_id: str
    payment: Literal["ADVANCE", "FINAL"]
    amount: Decimal
    error: str | None


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
class EqFilter:
    """The field equals the value.

    Numbers, and strings that are written like numbers, compare as decimals: `"1500.00"` equals `1500`. A missing
    field equals null.
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

    `template` is the signed content: its placeholders `{timestamp}`, `{id}` (the webhook-id) and `{body}` are
    replaced, everything else is taken literally. The signature is written into `header`, after `prefix`, in which
    `{timestamp}` is replaced too. The timestamp is sent in `timestamp_header`; without one, if the template needs
    it and the prefix does not contain it, in webhook-timestamp. It is written as `timestamp_format` says: in Unix
    seconds, or as `2026-01-31T12:00:00Z`. The key is the secret's `text`, or what follows `whsec_`, decoded from
    `base64`.
    """

    header: str
    algorithm: Literal["sha256", "sha512"]
    encoding: Literal["base64", "hex"]
    template: str
    """What is signed. `{timestamp}`, `{id}` (the webhook-id) and `{body}` are replaced."""
    prefix: str | None = None
    """What precedes the signature in the header. `{timestamp}` is replaced."""
    timestamp_header: str | None = None
    timestamp_format: Literal["rfc3339", "unix"] | None = None
    key_encoding: Literal["base64", "text"] | None = None


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
    failing_since: datetime | None
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
class RefusedItem:
    """A refused item of a batch. Its error paths start with its position, such as `payouts[2].amount`."""

    status: int
    problem: Problem
