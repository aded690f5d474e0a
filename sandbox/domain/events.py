"""Events and deliveries that a unit of work will write, and the subscriptions that select the endpoints. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec


@dataclass(frozen=True, slots=True)
class Subscription:
    """The part of a webhook endpoint that new events depend on. Entries of `event_types` may end in `*`."""

    endpoint_id: str
    event_types: tuple[str, ...]
    enabled: bool
    filters: str | None = None
    """Conditions on the event's body, as JSON."""
    is_paced: bool = False
    """Whether each delivery must wait for its turn: the endpoint is ordered, limited or relayed."""

    def includes(self, event_type: str) -> bool:
        """Return whether the endpoint subscribes to this event type."""
        return includes(self.event_types, event_type)


def includes(patterns: Iterable[str], event_type: str) -> bool:
    """Return whether an event type is among the patterns. A pattern is an event type, or ends in `*`."""
    return any(event_type.startswith(pattern[:-1]) if pattern.endswith("*") else event_type == pattern for pattern in patterns)


class NewEvent(msgspec.Struct, frozen=True):
    """An event to write. A payout's events are also its timeline."""

    id: str
    type: str
    body: str
    payout_id: str | None
    change: int | None
    from_status: str | None
    to_status: str | None
    cause: str
    scenario: str | None
    step: int | None
    transfer_id: str | None
    request_id: str
    actor: str | None = None
    traceparent: str | None = None
    """The trace of the API call that caused it, if it is not derived from the request id."""


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A delivery to write: due now if the endpoint is enabled, paused if it is not."""

    id: str
    event_id: str
    endpoint_id: str
    enabled: bool
    leased_until: datetime | None = None
    """The host's time until which this process has the delivery to itself, because it will send it after the commit."""
