"""Claim due deliveries for paced endpoints: those that are ordered, or limit their rate or their calls in progress.

All workers share these limits. A claim therefore locks the endpoints before it reads anything else.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec
from asyncpg import Record

from sandbox.domain.clock import Clock
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.webhooks.delivery.outbox import ClaimedDelivery, claim_together
from sandbox.webhooks.delivery.pacing import Candidate, Slot, Slots, choose, waits_until

_CANDIDATES_PER_ENDPOINT: Final = 128
"""Maximum number of due deliveries to an ordered endpoint that a claim examines. Each costs some lookups."""
_MAX_WAITS_ENDED: Final = 5000
"""Maximum number of deliveries that a change of the endpoint makes due. More would hold the merchant's lock too long."""

_SQL: Final = read_statements(__name__)


class PacedClaim(NamedTuple):
    """The result of a claim for a merchant's paced endpoints."""

    deliveries: Sequence[ClaimedDelivery] = ()
    recheck_after: float | None = None
    """Seconds until another claim can return more, even if no result is recorded; None if there is no such time."""


async def claim_paced(
    conn: Connection,
    merchant_id: str,
    clock: Clock,
    capacity: Mapping[str, int],
    default_capacity: int,
    relayed: str | None = None,
) -> PacedClaim:
    """Claim due deliveries for the merchant's paced endpoints, in the caller's transaction.

    `capacity` limits the deliveries by endpoint, and `default_capacity` those of each endpoint not in it. In a frozen world,
    the deliveries to one endpoint are sent one after the other; no limit applies, but `ordered` does. With `relayed`, only that
    endpoint is served, whose deliveries a listener sends. Raises asyncpg's errors.
    """
    if relayed is None:
        endpoints = await conn.fetch(_SQL["lock"], merchant_id)
    else:
        endpoints = await conn.fetch(_SQL["lock_relayed"], merchant_id, relayed)
    wall_now = datetime.now(UTC)  # read only now, because taking the lock may have taken time
    now = clock.now(wall_now)
    limits = {endpoint["id"]: capacity.get(endpoint["id"], default_capacity) for endpoint in endpoints}
    slots: dict[str, Slots] = {}
    if clock.frozen_at is None:
        await _apply_max_in_flight(conn, merchant_id, endpoints, limits, now, wall_now)
        for endpoint in endpoints:
            if endpoint["rate_limit"] is not None and limits[endpoint["id"]] > 0:
                slots[endpoint["id"]] = Slots(endpoint["rate_limit"], endpoint["rate_free_at"], wall_now)
    limits |= {endpoint_id: min(limits[endpoint_id], free.count) for endpoint_id, free in slots.items()}

    lengths = {
        endpoint["id"]: _CANDIDATES_PER_ENDPOINT if endpoint["ordered"] else limits[endpoint["id"]]
        for endpoint in endpoints
        if limits[endpoint["id"]] > 0
    }
    are_ordered = [endpoint["ordered"] for endpoint in endpoints if endpoint["id"] in lengths]
    candidates = await _candidates(conn, merchant_id, clock, wall_now, lengths, are_ordered)
    rechecks: list[float] = []
    chosen: dict[str, list[Candidate]] = {}
    waiting: list[Candidate] = []
    for endpoint_id, found in candidates.items():
        chosen[endpoint_id], must_wait = choose(found, limits[endpoint_id], in_sequence=clock.frozen_at is not None)
        waiting += must_wait
        if len(chosen[endpoint_id]) < limits[endpoint_id] and len(found) == lengths[endpoint_id]:
            rechecks.append(0.0)  # behind the examined ones that must wait, there may be others
    if waiting:
        times = [waits_until(candidate, now) for candidate in waiting]
        await conn.execute(_SQL["put_off"], merchant_id, [candidate.id for candidate in waiting], times)

    slot_of: dict[str, Slot] = {}
    for endpoint_id, free in slots.items():
        ids = [candidate.id for candidate in chosen.get(endpoint_id, ())]
        is_used_up = len(ids) == free.count
        slot_of |= zip(ids, free.take(len(ids)), strict=True)
        if ids:
            await conn.execute(_SQL["set_free_at"], merchant_id, endpoint_id, free.free_at)
        if is_used_up:
            rechecks.append(free.seconds_until_more())
    deliveries = await _claim_chosen(conn, merchant_id, clock, chosen, slot_of)
    return PacedClaim(deliveries, min(rechecks, default=None))


async def end_waits(conn: Connection, merchant_id: str, endpoint_id: str, now: datetime) -> None:
    """Make deliveries due that wait for others, because the endpoint is no longer ordered. `now` is the merchant's time.

    The transaction must hold the merchant's lock, and have changed the endpoint. Of a very large number, the rest stay
    scheduled as they are: after the deliveries that they waited for.
    """
    await conn.execute(_SQL["end_waits"], merchant_id, endpoint_id, now, _MAX_WAITS_ENDED)


async def _apply_max_in_flight(
    conn: Connection,
    merchant_id: str,
    endpoints: "Sequence[Record]",
    limits: dict[str, int],
    now: datetime,
    wall_now: datetime,
) -> None:
    """Lower the limits of endpoints with `max_in_flight` by the deliveries that any process is sending."""
    maxima = {endpoint["id"]: endpoint["max_in_flight"] for endpoint in endpoints if endpoint["max_in_flight"] is not None}
    if maxima:
        records = await conn.fetch(_SQL["in_flight"], merchant_id, now, wall_now, list(maxima))
        in_flight = {record["id"]: record["count"] for record in records}
        for endpoint_id, maximum in maxima.items():
            limits[endpoint_id] = min(limits[endpoint_id], max(0, maximum - in_flight.get(endpoint_id, 0)))


async def _candidates(
    conn: Connection,
    merchant_id: str,
    clock: Clock,
    wall_now: datetime,
    lengths: Mapping[str, int],
    are_ordered: Sequence[bool],
) -> Mapping[str, list[Candidate]]:
    """Return the earliest due deliveries by endpoint, as many as `lengths` says."""
    found: dict[str, list[Candidate]] = defaultdict(list)
    if lengths:
        offset = clock.offset if clock.frozen_at is None else None
        records = await conn.fetch(
            _SQL["candidates"],
            merchant_id,
            clock.now(wall_now),
            wall_now,
            list(lengths),
            are_ordered,
            list(lengths.values()),
            offset,
        )
        for r in records:
            found[r["endpoint_id"]].append(
                Candidate(r["id"], r["payout_id"], r["blockers"] or (), r["blocked_until"], r["is_attempted"])
            )
    return found


async def _claim_chosen(
    conn: Connection,
    merchant_id: str,
    clock: Clock,
    chosen: Mapping[str, Sequence[Candidate]],
    slots: Mapping[str, Slot],
) -> list[ClaimedDelivery]:
    payouts = {candidate.id: candidate.payout_id for found in chosen.values() for candidate in found}
    if not payouts:
        return []
    counts = {(merchant_id, endpoint_id): len(found) for endpoint_id, found in chosen.items()}
    claim = await claim_together(conn.fetch, {merchant_id: clock}, counts, chosen=list(payouts))
    return [
        msgspec.structs.replace(delivery, payout_id=payouts[delivery.id], slot=slots.get(delivery.id))
        for _, delivery in claim.deliveries
    ]
