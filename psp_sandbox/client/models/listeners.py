"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from datetime import datetime
from typing import Literal


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
class Reported:
    """What became of a reported result.

    `recorded`: the delivery has a new status. `late`: its lease had passed to another attempt, so the result is
    only logged. `repeated`: it was recorded before. `unknown`: there is no such delivery any more, or the lease is
    not this listener's.
    """

    outcome: Literal["late", "recorded", "repeated", "unknown"]
    delivery_id: str | None
    event_id: str | None
    event_type: str | None
    attempt: int | None
    at: datetime | None
    delivery_status: str | None
    next_attempt_at: datetime | None
