"""A merchant's world as rows: emptied, put away in arrays of rows, and put back. All of it under the merchant's lock."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from sandbox.db.engine import as_owner
from sandbox.merchants.tables import ENDPOINTS, WORLD

if TYPE_CHECKING:
    from asyncpg import Record
    from asyncpg.pool import PoolConnectionProxy

LARGEST_SNAPSHOT: Final = 100_000
"""Rows."""
_PART: Final = 250
"""Rows that one value holds: the largest kind, a stored answer to a batch, is about a megabyte."""

COLUMNS: Final = "id::text AS id, name, rows, size, clock_at, created_at"

_COUNTS: Final = " + ".join(
    f"(SELECT count(*) FROM (SELECT FROM {table} WHERE merchant_id = $1 LIMIT $2) t)"  # noqa: S608 -- constants
    for table in WORLD
)
_WRITTEN: Final = ", ".join(
    f"{table}_written AS ("  # noqa: S608 -- constants
    f"INSERT INTO snapshot_rows (merchant_id, snapshot_id, table_name, part, {table}) "
    f"SELECT $1, $2, '{table}', part, array_agg(r) FROM ("
    f"SELECT t AS r, ((row_number() OVER () - 1) / {_PART})::int AS part FROM {table} t WHERE t.merchant_id = $1"
    f") p GROUP BY part RETURNING cardinality({table}) AS count, pg_column_size({table}) AS size)"
    for table in WORLD
)
_PARTS: Final = " UNION ALL ".join(f"SELECT count, size FROM {table}_written" for table in WORLD)  # noqa: S608 -- constants

# One statement sees one moment, though deliveries are claimed and recorded without the merchant's lock.
_TAKE: Final = f"""
WITH {_WRITTEN}
INSERT INTO snapshots (merchant_id, id, name, rows, size, id_sequence, clock_frozen_at, clock_offset, default_scenario,
    clock_at, created_at)
SELECT $1, $2, $3, p.count, p.size, m.id_sequence, m.clock_frozen_at, m.clock_offset, m.default_scenario, $4, $5
FROM merchants m, (SELECT coalesce(sum(count), 0) AS count, coalesce(sum(size), 0) AS size FROM ({_PARTS}) w) p
WHERE m.merchant_id = $1
RETURNING {COLUMNS}
"""  # noqa: S608 -- constants

# Those that are under way, in the order in which their results are recorded: the two do not wait in a circle.
_LOCK_DELIVERIES: Final = """
SELECT FROM webhook_deliveries WHERE merchant_id = $1 AND leased_until IS NOT NULL ORDER BY id FOR UPDATE
"""

_BEGINNING: Final = """
UPDATE merchants SET id_sequence = 0, clock_frozen_at = NULL, clock_offset = '0', default_scenario = DEFAULT
WHERE merchant_id = $1 RETURNING opening_balance
"""

_AS_IT_WAS: Final = """
UPDATE merchants m SET id_sequence = s.id_sequence, clock_frozen_at = s.clock_frozen_at, clock_offset = s.clock_offset,
    default_scenario = s.default_scenario
FROM snapshots s WHERE m.merchant_id = $1 AND s.merchant_id = $1 AND s.id = $2
RETURNING m.clock_frozen_at, m.clock_offset, s.name, s.rows
"""

# What was under way is not any more: it is due again, and may arrive a second time.
_RELEASE: Final = """
UPDATE webhook_deliveries SET leased_until = NULL WHERE merchant_id = $1 AND leased_until IS NOT NULL
"""


async def count_rows(conn: "PoolConnectionProxy[Any]", merchant_id: str) -> int:
    """How many rows the world has; beyond LARGEST_SNAPSHOT, more than that."""
    count: int = await conn.fetchval(f"SELECT {_COUNTS}", merchant_id, LARGEST_SNAPSHOT + 1)
    return count


async def take_snapshot(conn: "PoolConnectionProxy[Any]", *arguments: object) -> "Record":
    """Put the world away under (merchant, id, name, the merchant's now, the host's time); returns COLUMNS."""
    record: Record | None = await conn.fetchrow(_TAKE, *arguments)
    assert record is not None
    return record


async def empty_world(conn: "PoolConnectionProxy[Any]", merchant_id: str) -> Any:
    """Empty the world of all but its webhook endpoints, and begin its clock and ids anew; returns the opening balance."""
    async with _unguarded(conn):
        await _empty(conn, merchant_id, keep=ENDPOINTS)
    return await conn.fetchval(_BEGINNING, merchant_id)


async def put_back(conn: "PoolConnectionProxy[Any]", merchant_id: str, snapshot_id: str) -> "Record | None":
    """Make the world what it was: rows, clock and ids; None, and nothing done, if there is no such snapshot."""
    record: Record | None = await conn.fetchrow(_AS_IT_WAS, merchant_id, snapshot_id)
    if record is not None:
        async with _unguarded(conn):
            await _empty(conn, merchant_id)
            for table in reversed(WORLD):
                await conn.execute(
                    f"INSERT INTO {table} SELECT r.* FROM snapshot_rows s "  # noqa: S608 -- constants
                    f"CROSS JOIN LATERAL unnest(s.{table}) r "
                    f"WHERE s.merchant_id = $1 AND s.snapshot_id = $2 AND s.table_name = '{table}'",
                    merchant_id,
                    snapshot_id,
                )
        await conn.execute(_RELEASE, merchant_id)
    return record


@asynccontextmanager
async def _unguarded(conn: "PoolConnectionProxy[Any]") -> AsyncIterator[None]:
    """Work as the owner, who may delete what others may not, and without foreign keys where he may leave them out.

    To look, for each row that goes, for others that still name it costs four times the deleting, and finds nothing: they go
    in this same transaction. What is put back stood under the same keys. Only a superuser may leave it out, as the embedded
    store's owner is.
    """
    async with as_owner(conn):
        may_skip = await conn.fetchval("SELECT current_setting('is_superuser') = 'on'")
        if may_skip:
            await conn.execute("SET LOCAL session_replication_role = replica")
        yield
        if may_skip:
            await conn.execute("SET LOCAL session_replication_role = origin")


async def _empty(conn: "PoolConnectionProxy[Any]", merchant_id: str, keep: str = "") -> None:
    await conn.execute(_LOCK_DELIVERIES, merchant_id)
    for table in WORLD:
        if table != keep:
            await conn.execute(f"DELETE FROM {table} WHERE merchant_id = $1", merchant_id)  # noqa: S608 -- constants
