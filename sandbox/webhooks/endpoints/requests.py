"""Request bodies for webhook endpoints and their validation. Pure."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from sandbox.domain.clock import parse
from sandbox.domain.enumerations import (
    EVENT_PATTERNS,
    EVENT_TYPES,
    EndpointStatus,
    EventType,
    RecoveryScope,
    RetryProfile,
    Signing,
    SigningTime,
)
from sandbox.domain.errors import invalid_fields
from sandbox.domain.event_filters import Filter, Filters
from sandbox.domain.fields import Text500, Time, Url, about
from sandbox.http.body_errors import FieldProblem, suggestion
from sandbox.webhooks.outbound.address_guard import Network
from sandbox.webhooks.outbound.url_check import url_error
from sandbox.webhooks.signing.dialects import CustomSigning, custom_signing_errors

DEFAULT_TYPES: Final = ("payout.*",)
"""The default subscription of an endpoint."""

_SUBSCRIBABLE: Final = ("*", *EVENT_PATTERNS, *EVENT_TYPES)
EventTypes = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=64, extra_json_schema={"enum": list(_SUBSCRIBABLE)})]],
    msgspec.Meta(min_length=1, max_length=32, description="The event types to send; patterns such as `payout.*` are allowed."),
]

_Signing = Annotated[Signing, about("How webhooks are signed.")]
_Profile = Annotated[RetryProfile, about("The retry schedule for failed attempts.")]
_Ordered = Annotated[bool, about("Whether a failing delivery holds back later events of the same payout.")]
RateLimit = Annotated[int, msgspec.Meta(ge=1, le=1000, description="Maximum number of attempts per second.")]
_SigningTime = Annotated[
    SigningTime,
    msgspec.Meta(
        description="The clock of `webhook-timestamp`: the host's (the default; every library can verify it) or the "
        "merchant's.",
        extra_json_schema={"type": "string"},
    ),
]
MaxInFlight = Annotated[int, msgspec.Meta(ge=1, le=100, description="Maximum number of attempts in progress.")]


class DeliverySettings(msgspec.Struct, kw_only=True):
    """The settings that decide what is delivered to an endpoint, and how."""

    event_types: Annotated[EventTypes, msgspec.Meta(extra_json_schema={"default": list(DEFAULT_TYPES)})] = msgspec.field(
        default_factory=lambda: list(DEFAULT_TYPES)
    )
    filters: Filters = msgspec.field(default_factory=list[Filter])
    """All must hold."""
    signing: _Signing = "v1"
    custom_signing: CustomSigning | None = None
    signing_time: _SigningTime = "host"
    retry_profile: _Profile = "standard"
    ordered: _Ordered = False
    rate_limit: RateLimit | None = None
    max_in_flight: MaxInFlight | None = None


class CreateEndpointBody(DeliverySettings, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /webhook-endpoints`. Each field has a column of the same name."""

    url: Url
    description: Text500 = ""


class ChangeEndpointBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `PATCH /webhook-endpoints/{endpoint_id}`. Omitted fields keep their value."""

    url: Url | UnsetType = UNSET
    event_types: EventTypes | UnsetType = UNSET
    filters: Filters | UnsetType = UNSET
    signing: _Signing | UnsetType = UNSET
    custom_signing: CustomSigning | UnsetType | None = UNSET
    signing_time: _SigningTime | UnsetType = UNSET
    retry_profile: _Profile | UnsetType = UNSET
    ordered: _Ordered | UnsetType = UNSET
    rate_limit: RateLimit | UnsetType | None = UNSET
    max_in_flight: MaxInFlight | UnsetType | None = UNSET
    description: Text500 | UnsetType = UNSET
    status: Annotated[EndpointStatus | UnsetType, about("Disable it, or enable it again.")] = UNSET


class DialectEndpoint(CreateEndpointBody, kw_only=True):
    """An endpoint that is created in a dialect."""

    wire: dict[str, Any]
    """`dialect` is its name. The rest are settings of the dialect that native endpoints do not have."""


class DialectChange(ChangeEndpointBody, kw_only=True):
    """A change of such an endpoint."""

    wire: dict[str, Any]


class PreviewBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /webhook-endpoints/{endpoint_id}/preview`. Omitted conditions are the endpoint's own."""

    event_types: EventTypes | UnsetType = UNSET
    filters: Filters | UnsetType = UNSET
    limit: Annotated[int, msgspec.Meta(ge=1, le=100, description="How many of the most recent events to check.")] = 100


class SendSampleBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /webhook-endpoints/{endpoint_id}/test`."""

    event_type: EventType


class RecoverBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /webhook-endpoints/{endpoint_id}/recover`. The period is that of the events, in the merchant's time."""

    since: Time
    until: Time | UnsetType = UNSET
    """Exclusive. Now, if omitted."""
    which: RecoveryScope
    """`failed`: events whose last attempt failed or that were kept while the endpoint was disabled. `all`: every event that the
    endpoint received or would have received, also those that it has received already."""
    event_types: EventTypes | UnsetType = UNSET
    """Only these, or all."""
    dry_run: bool = False
    """Only count."""


def check_endpoint(body: CreateEndpointBody | ChangeEndpointBody, allowed_networks: Sequence[Network]) -> None:
    """Check everything that the decoder cannot check. Raises VALIDATION_ERROR with every invalid field."""
    errors = endpoint_errors(
        {name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET}, allowed_networks
    )
    if isinstance(body, CreateEndpointBody):  # a change may leave this to the endpoint's present settings
        errors += dialect_errors(body.signing, body.custom_signing)
    if errors:
        raise invalid_fields(errors)


def endpoint_errors(fields: Mapping[str, Any], allowed_networks: Sequence[Network]) -> list[FieldProblem]:
    """Return the validation errors that the schema cannot express. Skips absent fields."""
    error = url_error(fields["url"], allowed_networks) if "url" in fields else None
    errors = [] if error is None else [("url", error)]
    custom = fields.get("custom_signing") or {}
    errors += custom_signing_errors(msgspec.structs.asdict(custom) if isinstance(custom, CustomSigning) else custom)
    return errors + event_type_errors(fields)


def dialect_errors(signing: str, custom: CustomSigning | None) -> list[FieldProblem]:
    """Return the validation error if `custom_signing` is missing, or is not for this dialect."""
    if signing == "custom" and custom is None:
        return [("custom_signing", "is required if signing is custom: an object with header, algorithm, encoding and template")]
    if signing != "custom" and custom is not None:
        return [("custom_signing", f"is only for signing custom, and signing is {signing}")]
    return []


def recover_errors(fields: Mapping[str, Any]) -> list[FieldProblem]:
    """Return the validation errors of a recovery that the schema cannot express. Skips absent fields."""
    errors: list[FieldProblem] = []
    times = {name: fields[name] for name in ("since", "until") if fields.get(name, UNSET) is not UNSET}
    for name, text in times.items():
        try:
            times[name] = parse(text)
        except (ValueError, OverflowError):
            errors.append((name, "must be an RFC 3339 time with an offset, such as 2026-01-31T12:00:00.000Z"))
    if not errors and len(times) == 2 and times["until"] <= times["since"]:
        errors.append(("until", "must be later than since"))
    return errors + event_type_errors(fields)


def event_type_errors(fields: Mapping[str, Any]) -> list[FieldProblem]:
    """Return the validation errors in `event_types`. Skips an absent field."""
    event_types = fields.get("event_types", UNSET)
    return [] if event_types is UNSET else _unknown_types(event_types)


def _unknown_types(event_types: Sequence[str]) -> list[FieldProblem]:
    return [
        (
            f"event_types[{index}]",
            f"must be *, a pattern such as payout.*, or one of {', '.join(EVENT_TYPES)}{suggestion(pattern, EVENT_TYPES)}",
        )
        for index, pattern in enumerate(event_types)
        if pattern not in _SUBSCRIBABLE
    ]
