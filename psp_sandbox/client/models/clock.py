"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal

from psp_sandbox.client.literals import EventType, PayoutStatus
from psp_sandbox.client.models.shared import (
    DeliveryAttempt,
    PayoutStep,
    SaleAttempt,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockRun:
    """The result of advancing the clock.

    `steps` counts the due steps that were run; `ran` lists the first 1000 in order. If `complete` is true, all due
    work is done and committed. Otherwise `stopped_because` says why the advance stopped at `now`; repeat the
    request to continue.
    """

    now: datetime
    frozen: bool
    frozen_at: datetime | None
    offset_seconds: float | None
    from_: datetime = field(metadata={"name": "from"})
    complete: bool
    stopped_because: str | None
    steps: int
    ran: list[PayoutStep | SaleAttempt | DeliveryAttempt]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockState:
    """A merchant's clock. `offset_seconds` says how far it is ahead of the host's clock; null while frozen."""

    now: datetime
    frozen: bool
    frozen_at: datetime | None
    offset_seconds: float | None


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
class DueSale:
    """A scheduled payment of a sale: its advance, or its final payment, which is negative if it takes back the
    advance.
    """

    kind: Literal["sale_payment"]
    due_at: datetime
    sale_id: str
    user_id: str
    payment: Literal["ADVANCE", "FINAL"]
    amount: Decimal
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DueStep:
    """A payout's scheduled status change, or several that happen at the same time.

    `to` is the status after them, null if nothing will change because the payout cannot continue its scenario.
    `description` names every status on the way.
    """

    kind: Literal["payout_step"]
    due_at: datetime
    payout_id: str
    from_: PayoutStatus = field(metadata={"name": "from"})
    to: PayoutStatus | None
    failure_code: str | None
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DueWork:
    """What happens next, soonest first. Of what is due at the same time, payouts come first, then sales.

    A request for `clock/advance` to an item's `due_at` runs it. There are no further pages: `next_cursor` is always
    null, and `has_more` says whether there is more than `limit`.
    """

    data: list[DueStep | DueSale | DueDelivery]
    has_more: bool
    next_cursor: str | None = None
