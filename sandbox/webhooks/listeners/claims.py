"""Claim the due deliveries of a relayed endpoint for its listener, as its limits and the merchant's clock allow."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from sandbox.domain.clock import Clock
from sandbox.domain.errors import Problem
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.unit_of_work.transaction import write_rows
from sandbox.webhooks.delivery.outbox import ClaimedDelivery
from sandbox.webhooks.delivery.paced_claims import PacedClaim, claim_paced

POLL_SECONDS: Final = 1.0
"""How often a waiting claim looks for due deliveries that the live feed does not announce, such as resends."""
_RECHECK_SECONDS: Final = 0.1

_SQL: Final = read_statements(__name__)


async def claim_now(merchant_id: str, endpoint_id: str, limit: int) -> tuple[Sequence[ClaimedDelivery], float]:
    """Claim up to `limit` deliveries that are due now. Also return in how many seconds to look again if there are none.

    In a frozen world, a listener gets one delivery at a time. Raises NOT_FOUND if there is no such listener, INVALID_STATE if
    its endpoint is disabled, and asyncpg's errors. If it raises, nothing was claimed.
    """
    wall_now = datetime.now(UTC)
    # Most polls find nothing, so read before locking anything.
    async with connection(merchant_id) as conn:
        state = await conn.fetchrow(_SQL["state"], merchant_id, endpoint_id, wall_now)
    if state is None:
        raise Problem("NOT_FOUND", f"Listener {endpoint_id} not found; it may have been deleted.")
    if state["status"] != "ENABLED":
        raise Problem("INVALID_STATE", f"Listener {endpoint_id} is disabled. {state['disabled_reason'] or ''}".strip())
    clock = Clock(state["clock_frozen_at"], state["clock_offset"])
    if state["due_at"] is None:
        return [], POLL_SECONDS
    due_in = (state["due_at"] - clock.now(wall_now)).total_seconds()
    if due_in > 0:
        return [], POLL_SECONDS if clock.frozen_at is not None else min(due_in + 0.001, POLL_SECONDS)

    async def claim(conn: Connection) -> PacedClaim:
        if clock.frozen_at is None:
            return await claim_paced(conn, merchant_id, clock, {endpoint_id: limit}, 0, endpoint_id)
        # Concurrent claims would not see each other's leases. Under the merchant's lock, the second sees the first one's.
        locked = await conn.fetchrow(_SQL["lock"], merchant_id)
        if locked is None:
            return PacedClaim()
        frozen, wall_now = Clock(locked["clock_frozen_at"], locked["clock_offset"]), datetime.now(UTC)
        if await conn.fetchval(_SQL["busy"], merchant_id, endpoint_id, frozen.now(wall_now), wall_now):
            return PacedClaim()
        return await claim_paced(conn, merchant_id, frozen, {endpoint_id: 1}, 0, endpoint_id)

    claimed = await write_rows(merchant_id, claim)
    recheck = _RECHECK_SECONDS if claimed.recheck_after is None else claimed.recheck_after
    return claimed.deliveries, min(max(recheck, 0.01), POLL_SECONDS)
