"""The parts of requests, as typed dicts."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired, TypedDict

from psp_sandbox.client._calls import Amount
from psp_sandbox.client.literals import ErrorClass, WalletCode


class CreatePayout(TypedDict):
    """The body of `POST /payouts`."""

    merchant_reference: str
    amount: Amount
    currency: NotRequired[Literal["PKR"]]
    dest_type: Literal["BANK", "WALLET"]
    bank_code: NotRequired[str]
    account_number: str
    """10 to 16 digits, or a Pakistani IBAN of this bank or wallet (its check digits are verified). The last four
    digits choose the scenario.
    """
    account_title: NotRequired[str | None]
    metadata: NotRequired[Mapping[str, str] | None]
    requires_approval: NotRequired[bool]
    wallet_code: NotRequired[WalletCode]


class Destination(TypedDict):
    """Where a user's payouts go."""

    dest_type: Literal["BANK", "WALLET"]
    bank_code: NotRequired[str]
    account_number: str
    """10 to 16 digits, or a Pakistani IBAN of this bank or wallet (its check digits are verified). The last four
    digits choose the scenario.
    """
    wallet_code: NotRequired[WalletCode]


class CreateUser(TypedDict):
    """The body of `POST /users`. `vendor_user_id` is the user's id in the vendor feed; it defaults to the user's id."""

    name: str
    external_id: NotRequired[str | None]
    vendor_user_id: NotRequired[str | None]
    destination: NotRequired[Destination | None]


class CustomSigning(TypedDict):
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
    prefix: NotRequired[str]
    """What precedes the signature in the header. `{timestamp}` is replaced."""
    timestamp_header: NotRequired[str | None]
    timestamp_format: NotRequired[Literal["rfc3339", "unix"]]
    key_encoding: NotRequired[Literal["base64", "text"]]


class DeliveryMatch(TypedDict):
    """Which deliveries match. `event_type` can contain `*`."""

    event_type: NotRequired[str]
    endpoint_id: NotRequired[str]


class EitherMatch(TypedDict):
    """Which requests (`method`, `path`, `reference`) or deliveries (`event_type`, `endpoint_id`) match."""

    method: NotRequired[Literal["DELETE", "GET", "PATCH", "POST", "PUT"]]
    path: NotRequired[str]
    reference: NotRequired[str]
    event_type: NotRequired[str]
    endpoint_id: NotRequired[str]


class EqFilter(TypedDict):
    """The field equals the value.

    Numbers, and strings that are written like numbers, compare as decimals: `"1500.00"` equals `1500`. A missing
    field equals null.
    """

    op: Literal["eq"]
    field: str
    value: str | int | float | bool | None


class ExistsFilter(TypedDict):
    """The field is present (`true`, the default), or missing or null (`false`)."""

    op: Literal["exists"]
    field: str
    value: NotRequired[bool]


class GteFilter(TypedDict):
    """The field is at least this number or string. A missing field is not. RFC 3339 times in UTC are in order as
    strings.
    """

    op: Literal["gte"]
    field: str
    value: str | int | float


class InFilter(TypedDict):
    """The field equals one of the values."""

    op: Literal["in"]
    field: str
    value: Sequence[str | int | float | bool | None]


class LteFilter(TypedDict):
    """The field is at most this number or string. A missing field is not."""

    op: Literal["lte"]
    field: str
    value: str | int | float


class NeFilter(TypedDict):
    """The field does not equal the value, or is missing."""

    op: Literal["ne"]
    field: str
    value: str | int | float | bool | None


class PrefixFilter(TypedDict):
    """The field is a string that begins with the value."""

    op: Literal["prefix"]
    field: str
    value: str


class ReconcileItem(TypedDict):
    """The decision about one sale."""

    sale_id: str
    status: Literal["APPROVED", "DECLINED"]


class RequestMatch(TypedDict):
    """Which API requests match. `reference` is part of the body's merchant_reference; it and `path` can contain `*`."""

    method: NotRequired[Literal["DELETE", "GET", "PATCH", "POST", "PUT"]]
    path: NotRequired[str]
    reference: NotRequired[str]


class Phases(TypedDict):
    """How long each phase of an attempt took, in milliseconds. A phase that did not happen is null."""

    dns_ms: NotRequired[float | None]
    connect_ms: NotRequired[float | None]
    tls_ms: NotRequired[float | None]
    first_byte_ms: NotRequired[float | None]


class Result(TypedDict):
    """The result of one attempt: what the receiver responded, or why it did not."""

    lease: str
    status: NotRequired[int | None]
    headers: NotRequired[Mapping[str, str]]
    body: NotRequired[str]
    error: NotRequired[str | None]
    error_class: NotRequired[ErrorClass | None]
    timings: NotRequired[Phases]
    duration_ms: NotRequired[int]


class RuleMatch(TypedDict):
    """The conditions of a rule. A payout must meet all of them; at least one is required."""

    suffix: NotRequired[str]
    account_number: NotRequired[str]
    bank_code: NotRequired[str]
    wallet_code: NotRequired[WalletCode]
    amount_from: NotRequired[Amount]
    amount_to: NotRequired[Amount]
    user_id: NotRequired[str]
    metadata: NotRequired[Mapping[str, str]]
    scenario_header: NotRequired[str]


class RuleStep(TypedDict):
    """One status change, `after` seconds from the previous one. With a `probability` below 1, payouts may skip the
    step.

    A step to FAILED, CANCELLED or RETURNED ends the path: `PROCESSING, FAILED (0.5), SUCCESS` fails half of the
    payouts. After a step with `wait`, nothing happens automatically; the remaining steps follow a release to
    PROCESSING.
    """

    to: Literal["CANCELLED", "FAILED", "IN_REVIEW", "ON_HOLD", "PROCESSING", "RETRY", "RETURNED", "SUCCESS"]
    after: NotRequired[float]
    failure_code: NotRequired[str]
    psp_reference: NotRequired[str]
    probability: NotRequired[float]
    wait: NotRequired[bool]


class Rule(TypedDict):
    """The body of `POST /scenarios` and `PUT /scenarios/{id}`."""

    name: str
    match: RuleMatch
    steps: Sequence[RuleStep]
    position: NotRequired[int]
