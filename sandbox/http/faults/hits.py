"""Read the faults that can hit, and count each hit exactly once."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from sandbox.http.fault import Fault, InjectedFault
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.unit_of_work.transaction import write_rows

_SQL: Final = read_statements(__name__)


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


async def _count(conn: Connection, merchant_id: str, fault: Fault, draw_key: str | None) -> InjectedFault | None:
    counted = await conn.fetchrow(_SQL["count"], merchant_id, fault.id, datetime.now(UTC))
    if counted is None or counted["matches"] <= counted["skip"]:
        return None
    counter: int = counted["matches"]
    if not fault.hits(draw_key or str(counter)):
        return None
    await conn.execute(_SQL["hit"], merchant_id, fault.id)
    return InjectedFault(fault, counter)
