"""Claim and lease deliveries in the transactions of a worker's payout steps, so that it can send them after the COMMIT.

The transaction holds its merchants' locks. It claims their deliveries that are due already, and inserts new ones with a
lease if their endpoints have capacity. One statement serves all merchants. The older deliveries are sent first, so an endpoint
normally receives a payout's events in order.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import ceil
from typing import Final

from sandbox.domain.events import NewDelivery, NewEvent, Subscription
from sandbox.domain.trace import derive
from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.db.connector import Connection
from sandbox.webhooks.delivery.attempt import AttemptRunner
from sandbox.webhooks.delivery.outbox import Claim, ClaimedDelivery, ClaimedEndpoint, claim_together

_PARALLEL_CALLS: Final = 32
"""Up to this many deliveries to one endpoint are sent in parallel. If there are more, each call slot sends several."""
DELIVERIES_PER_CALL: Final = 4
"""Maximum number of deliveries that one call slot sends, one after the other."""
_OLDER_PER_PAYOUT: Final = 2
"""Expected number of older deliveries to an endpoint per payout. One is usually `payout.created`."""
_MIN_OLDER: Final = 4
"""Number of older deliveries to an endpoint to allow for, besides those per payout."""
_NOTHING: Final = Claim(datetime.min.replace(tzinfo=UTC), {}, ())


class TransactionDeliveries:
    """The deliveries claimed and leased in one transaction of a worker. Its instances are `BeforeWrite` hooks."""

    def __init__(self, attempts: AttemptRunner, room: Callable[[str, str], int]) -> None:
        """`room` returns how many deliveries to a merchant's endpoint the process can take."""
        self.complete: set[str] = set()
        """Merchants whose due deliveries are all leased, here or by other transactions."""
        self.sequences: dict[str, list[list[ClaimedDelivery]]] = {}
        """By merchant: the deliveries of each reserved call slot."""
        self._attempts = attempts
        self._room = room
        self._reserved: dict[tuple[str, str], int] = {}
        """By merchant and endpoint: the reserved call slots."""

    async def __call__(self, conn: Connection, units: Sequence[UnitOfWork]) -> None:
        """Claim the due deliveries of the units' merchants, and lease the units' new deliveries.

        Skips frozen worlds, where deliveries are sent one at a time.
        """
        units = [unit for unit in units if unit.clock.frozen_at is None]
        limits: dict[tuple[str, str], int] = {}
        for unit in units:
            limits |= self._reserve(unit)
        clocks = {
            unit.merchant_id: unit.clock
            for unit in units
            if any(_is_leasable(subscription) for subscription in unit.subscriptions)
        }
        claim = await claim_together(conn.fetch, clocks, limits) if any(limits.values()) else _NOTHING
        older: dict[tuple[str, str], list[ClaimedDelivery]] = defaultdict(list)
        for merchant_id, delivery in claim.deliveries:
            older[merchant_id, delivery.endpoint_id].append(delivery)
        for unit in units:
            self._lease(unit, claim, limits, older)

    def _reserve(self, unit: UnitOfWork) -> dict[tuple[str, str], int]:
        """Reserve call slots for a merchant's endpoints. Return, by merchant and endpoint, how many deliveries they can send.

        How many older deliveries are due is not known yet. `_lease` releases the slots that are not needed.
        """
        merchant_id = unit.merchant_id
        new = Counter(delivery.endpoint_id for delivery in unit.deliveries)
        older = _MIN_OLDER + _OLDER_PER_PAYOUT * len(unit.due)
        expected = {
            subscription.endpoint_id: new[subscription.endpoint_id] + older
            for subscription in unit.subscriptions
            if _is_leasable(subscription)
        }
        wanted = {id_: min(_calls(n), self._room(merchant_id, id_) // DELIVERIES_PER_CALL) for id_, n in expected.items()}
        begun = self._attempts.begin_up_to(merchant_id, wanted)
        self._reserved |= {(merchant_id, id_): calls for id_, calls in begun.items()}
        return {
            (merchant_id, id_): begun.get(id_, 0) * (1 if count <= _PARALLEL_CALLS else DELIVERIES_PER_CALL)
            for id_, count in expected.items()
        }

    def _lease(
        self,
        unit: UnitOfWork,
        claim: Claim,
        limits: Mapping[tuple[str, str], int],
        older: Mapping[tuple[str, str], list[ClaimedDelivery]],
    ) -> None:
        """Mark a unit's new deliveries as leased, the earliest first, and distribute them and the older ones over the calls."""
        merchant_id = unit.merchant_id
        events = {event.id: (event, event.body.encode()) for event in unit.events}
        new: dict[str, list[int]] = defaultdict(list)
        for index, delivery in enumerate(unit.deliveries):
            new[delivery.endpoint_id].append(index)
        sequences: list[list[ClaimedDelivery]] = []
        paused = self._attempts.paused(merchant_id)
        is_complete = not any(subscription.enabled and subscription.is_paced for subscription in unit.subscriptions)
        for endpoint_id in (subscription.endpoint_id for subscription in unit.subscriptions if _is_leasable(subscription)):
            key = merchant_id, endpoint_id
            deliveries, endpoint = older.get(key, []), claim.endpoints.get(key)
            if len(deliveries) == limits[key]:
                is_complete &= endpoint_id in paused  # more may be due, and the new ones must not overtake them
            elif endpoint is not None:
                for index in new[endpoint_id][: limits[key] - len(deliveries)]:
                    unit.deliveries[index] = delivery = replace(unit.deliveries[index], leased_until=claim.lease)
                    event, body = events[delivery.event_id]
                    deliveries.append(_claimed(unit, delivery, event, body, endpoint))
            begun = self._reserved.get(key, 0)
            calls = self._reserved[key] = min(begun, _calls(len(deliveries)))
            self._attempts.end(merchant_id, endpoint_id, begun - calls)
            sequences += [deliveries[number::calls] for number in range(calls)]
        self.sequences[merchant_id] = sequences
        if is_complete:
            self.complete.add(merchant_id)

    def cancel(self) -> None:
        """Release all reserved call slots, because the transaction failed."""
        for (merchant_id, endpoint_id), calls in self._reserved.items():
            self._attempts.end(merchant_id, endpoint_id, calls)
        self._reserved.clear()


def _is_leasable(subscription: Subscription) -> bool:
    return subscription.enabled and not subscription.is_paced


def _calls(deliveries: int) -> int:
    """Return how many calls send this number of deliveries to one endpoint."""
    return min(deliveries, max(_PARALLEL_CALLS, ceil(deliveries / DELIVERIES_PER_CALL)))


def _claimed(
    unit: UnitOfWork, delivery: NewDelivery, event: NewEvent, body: bytes, endpoint: ClaimedEndpoint
) -> ClaimedDelivery:
    assert delivery.leased_until is not None
    return ClaimedDelivery(
        id=delivery.id,
        event_id=delivery.event_id,
        endpoint_id=delivery.endpoint_id,
        endpoint=endpoint,
        scheduled_attempts=0,
        attempt=1,
        event_type=event.type,
        body=body,
        request_id=event.request_id,
        lease=delivery.leased_until,
        clock=unit.clock,
        traceparent=event.traceparent or derive(event.request_id),
    )
