"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psp_sandbox.client.models.shared import (
    Delivery,
)


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
