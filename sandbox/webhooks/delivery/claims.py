"""Claim a merchant's due webhook deliveries, as its clock and its endpoints' limits allow."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from typing import Final, NamedTuple

from sandbox.domain.clock import Clock
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.joined_messages import commit_joined
from sandbox.infrastructure.db.statements import read_statements
from sandbox.unit_of_work.transaction import execute_in_own_transaction, write_rows
from sandbox.webhooks.delivery.outbox import CLAIM, ClaimedDelivery, Fetch, claim_together
from sandbox.webhooks.delivery.paced_claims import PacedClaim, claim_paced

FROZEN_CLAIM_LIMIT: Final = 64
"""Maximum number of deliveries per endpoint in one claim while the clock is frozen. They are sent one after the other."""

_SQL: Final = read_statements(__name__)


class DueClaim(NamedTuple):
    """The result of a claim for one merchant."""

    deliveries: Sequence[ClaimedDelivery] = ()
    busy: frozenset[str] = frozenset()
    """In a frozen world: the endpoints with an attempt in progress in any process. Nothing was claimed for them."""
    has_paced: bool = False
    """Whether an endpoint is ordered or limited, so that each recorded result can allow another claim."""
    enabled: frozenset[str] = frozenset()
    """The merchant's enabled endpoints."""
    recheck_after: float | None = None
    """Seconds until another claim can return more, even if no result is recorded; None if there is no such time."""


async def claim_due(merchant_id: str, capacity: Mapping[str, int], default_capacity: int) -> DueClaim:
    """Claim due deliveries: at most `capacity[endpoint]` for each endpoint, `default_capacity` for endpoints not in `capacity`.

    The endpoints' own limits hold across all workers. With a frozen clock, deliveries are sent one after the other and no limit
    applies. The claim then skips busy endpoints. Raises asyncpg's errors. If it raises, nothing was claimed.
    """
    async with connection(merchant_id) as conn:
        world = await conn.fetchrow(_SQL["clock"], merchant_id)
    if world is None:
        return DueClaim()
    clock, enabled = Clock(world["clock_frozen_at"], world["clock_offset"]), frozenset(world["enabled"])
    if clock.frozen_at is None and not world["has_paced"]:
        fetch = partial(execute_in_own_transaction, merchant_id)
        return DueClaim(await _claim_plain(fetch, merchant_id, clock, capacity, default_capacity), enabled=enabled)

    async def claim(conn: Connection) -> DueClaim:
        if clock.frozen_at is None:
            return await _claim_running(conn, merchant_id, clock, capacity, default_capacity)
        # Concurrent claims would not see each other's leases. Under the merchant's lock, the second sees the first one's.
        locked = await conn.fetchrow(_SQL["lock"], merchant_id)
        if locked is None:
            return DueClaim()
        now_clock = Clock(locked["clock_frozen_at"], locked["clock_offset"])
        return await _claim_frozen(conn, merchant_id, now_clock, world["has_paced"], commit=True)

    return (await write_rows(merchant_id, claim))._replace(enabled=enabled)


async def claim_in_transaction(conn: Connection, merchant_id: str, capacity_per_endpoint: int) -> Sequence[ClaimedDelivery]:
    """Claim due deliveries in the caller's transaction, which must hold the merchant's lock. See `claim_due`."""
    world = await conn.fetchrow(_SQL["clock"], merchant_id)
    if world is None:
        return []
    clock = Clock(world["clock_frozen_at"], world["clock_offset"])
    if clock.frozen_at is None and not world["has_paced"]:
        return await _claim_plain(conn.fetch, merchant_id, clock, {}, capacity_per_endpoint)
    if clock.frozen_at is None:
        return (await _claim_running(conn, merchant_id, clock, {}, capacity_per_endpoint)).deliveries
    return (await _claim_frozen(conn, merchant_id, clock, world["has_paced"])).deliveries


async def _claim_running(
    conn: Connection,
    merchant_id: str,
    clock: Clock,
    capacity: Mapping[str, int],
    default_capacity: int,
) -> DueClaim:
    # Paced endpoints come first: their claim can wait for a lock, and must not hold deliveries of others meanwhile.
    paced = await claim_paced(conn, merchant_id, clock, capacity, default_capacity)
    plain = await _claim_plain(conn.fetch, merchant_id, clock, capacity, default_capacity)
    return DueClaim([*paced.deliveries, *plain], has_paced=True, recheck_after=paced.recheck_after)


async def _claim_frozen(conn: Connection, merchant_id: str, clock: Clock, has_paced: bool, *, commit: bool = False) -> DueClaim:
    """Claim for endpoints that are not busy. The caller must hold the merchant's lock. Also `commit` the transaction."""
    wall_now = datetime.now(UTC)
    busy = frozenset(record["id"] for record in await conn.fetch(_SQL["busy"], merchant_id, clock.now(wall_now), wall_now))
    capacity = dict.fromkeys(busy, 0)
    paced = await claim_paced(conn, merchant_id, clock, capacity, FROZEN_CLAIM_LIMIT) if has_paced else PacedClaim()
    with commit_joined(conn, CLAIM) if commit else nullcontext():
        plain = await _claim_plain(conn.fetch, merchant_id, clock, capacity, FROZEN_CLAIM_LIMIT)
    return DueClaim([*paced.deliveries, *plain], busy, recheck_after=paced.recheck_after)


async def _claim_plain(
    fetch: Fetch, merchant_id: str, clock: Clock, capacity: Mapping[str, int], default_capacity: int
) -> list[ClaimedDelivery]:
    by_merchant = {(merchant_id, endpoint_id): count for endpoint_id, count in capacity.items()}
    claim = await claim_together(fetch, {merchant_id: clock}, by_merchant, default_capacity)
    return [delivery for _, delivery in claim.deliveries]
