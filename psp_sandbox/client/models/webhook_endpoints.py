"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from datetime import datetime

from psp_sandbox.client.models.shared import (
    CustomSigning,
    EqFilter,
    ExistsFilter,
    GteFilter,
    InFilter,
    LteFilter,
    NeFilter,
    PrefixFilter,
    StatusChange,
)


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
    failing_since: datetime | None
    history: list[StatusChange]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPreview:
    """A recent event, and whether the endpoint would have received it."""

    event_id: str
    type: str
    matches: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How many events are sent again, also by type."""

    count: int
    by_type: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedSecret:
    """The new secret of an endpoint, which is shown only here. With `v1a` it is null, and `public_key` is there
    instead.
    """

    secret: str | None
    public_key: str | None
    previous_expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningExample:
    """How a webhook is signed. No secret is in it; keys are shown by their fingerprints."""

    signed_content: str
    headers: dict[str, str]
    steps: list[str]
