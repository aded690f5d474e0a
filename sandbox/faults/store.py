"""Read the faults that can hit, and count each hit exactly once."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sandbox.domain.fault import Fault, InjectedFault
from sandbox.unit_of_work.transaction import write_rows

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

FAULTS_OF: Final = (
    "SELECT json_build_array(id, kind, match, parameters, probability, seed) FROM faults f "
    "WHERE f.merchant_id = {merchant} AND target = '{target}' AND hits < coalesce(count, hits + 1) ORDER BY id"
)
"""A subquery for the faults of a target that have hits left, as JSON that `to_fault` reads."""

# The update locks the fault's row until the hit is decided, so a fault with a count of 1 hits once across all processes.
_COUNT: Final = """
UPDATE faults f SET matches = f.matches + 1 FROM worlds w
WHERE f.merchant_id = $1 AND f.id = $2 AND w.merchant_id = $1 AND (f.count IS NULL OR f.hits < f.count)
    AND (f.expires_at IS NULL OR CASE WHEN w.clock_frozen_at IS NULL THEN f.expires_at - $3::timestamptz > w.clock_offset
        ELSE f.expires_at > w.clock_frozen_at END)
RETURNING f.matches, coalesce(f.skip, 0) AS skip
"""
_HIT: Final = "UPDATE faults SET hits = hits + 1 WHERE merchant_id = $1 AND id = $2"


async def first_hit(
    merchant_id: str, faults: Sequence[Fault], matches: Callable[[Fault], bool], draw_key: str | None = None
) -> InjectedFault | None:
    """Return the first fault that matches and hits, and count it; None if no fault hits. Raises asyncpg's errors.

    `draw_key` decides whether a match is a hit: the same key always gives the same result. By default, the key is the fault's
    number of matches.
    """
    for fault in faults:
        if not matches(fault):
            continue
        hit = await write_rows(merchant_id, partial(_count, merchant_id=merchant_id, fault=fault, draw_key=draw_key))
        if hit is not None:
            return hit
    return None


async def _count(
    conn: "PoolConnectionProxy[Any]", merchant_id: str, fault: Fault, draw_key: str | None
) -> InjectedFault | None:
    counted = await conn.fetchrow(_COUNT, merchant_id, fault.id, datetime.now(UTC))
    if counted is None or counted["matches"] <= counted["skip"]:
        return None
    counter: int = counted["matches"]
    if not fault.hits(draw_key or str(counter)):
        return None
    await conn.execute(_HIT, merchant_id, fault.id)
    return InjectedFault(fault, counter)
