"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal

from psp_sandbox.client.literals import PayoutStatus
from psp_sandbox.client.models.shared import (
    Payout,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionBody:
    """A request's body: only a simulation has a `status`. A `failure_code` can be added."""

    status: PayoutStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedPayout:
    """The result of a batch item that was created."""

    status: Literal[201]
    payout: Payout


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutAction:
    """A request that can change a payout now.

    `operation` is the operation's id in this document, `body` its body, and `access` the role that its key needs
    (an admin key can do everything). `failure_codes` are the known codes that `body.failure_code` may have: an
    unknown code of your own is accepted too. The list is empty if the body takes no code. `default_failure_code` is
    the payout's code if the body has none.
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
class RequestedTotal:
    """A user with payout requests waiting for approval."""

    user_id: str
    total_requested: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One status change of a payout.

    `actor` is the id of the API key that requested it. `request_id` is the request that caused it; for a change
    made by the worker, it is the last request that set the payout in motion. `traceparent` is the trace of the
    request that created the payout.
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
