"""A merchant's world as rows: emptied, put away in arrays of rows, and put back. All of it under the merchant's lock."""

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from sandbox.db.engine import as_owner
from sandbox.domain.clock import Clock
from sandbox.merchants.tables import ENDPOINTS, LOCK, LOCKED_BY_OTHERS, WORLD

if TYPE_CHECKING:
    from asyncpg import Record
    from asyncpg.pool import PoolConnectionProxy

LARGEST_SNAPSHOT: Final = 100_000
"""Rows."""
_PART: Final = 250
"""Rows that one value holds: the largest kind, a stored answer to a batch, is about a megabyte."""

_STANDING: Final = ("user_transactions", "events", "transfers")
"""Whose rows are written once and never changed: going back in time takes away those that came later, and no others."""

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
_PARTS: Final = " UNION ALL ".join(
    f"SELECT count, size, {table in _STANDING} AS stands FROM {table}_written"  # noqa: S608 -- constants
    for table in WORLD
)

_ALL_BEFORE: Final = " AND ".join(f"NOT EXISTS (SELECT FROM {table} WHERE merchant_id = $1 AND id > $6)" for table in _STANDING)

# One statement sees one moment, though deliveries are claimed and recorded without the merchant's lock.
_TAKE: Final = f"""
WITH {_WRITTEN}
INSERT INTO snapshots (merchant_id, id, name, rows, size, clock_at, created_at, position, standing_rows, stands)
SELECT $1, $2, $3, p.count, p.size, $4, $5, p.position, p.standing, p.position IS NOT NULL
FROM (
    SELECT sum(count) AS count, sum(size) AS size, coalesce(sum(count) FILTER (WHERE stands), 0) AS standing,
        CASE WHEN {_ALL_BEFORE} THEN $6::uuid END AS position
    FROM ({_PARTS}) w
) p
RETURNING id, name, rows, size, clock_at, created_at
"""  # noqa: S608 -- constants

# Those that are under way, in the order in which their results are recorded: the two do not wait in a circle.
_LOCK_DELIVERIES: Final = """
SELECT FROM webhook_deliveries WHERE merchant_id = $1 AND leased_until IS NOT NULL ORDER BY id FOR UPDATE
"""

_BEGINNING: Final = """
UPDATE worlds SET id_sequence = DEFAULT, clock_frozen_at = $2, clock_offset = DEFAULT, default_scenario = DEFAULT,
    approvals_expire_after = DEFAULT, review_threshold = DEFAULT
WHERE merchant_id = $1
"""
_BEGINS: Final = "SELECT seed, begins_at, opening_balance FROM merchants WHERE merchant_id = $1"

_SNAPSHOT: Final = """
SELECT name, rows, position, standing_rows, stands FROM snapshots WHERE merchant_id = $1 AND id = $2
"""

# The seed is the merchant's, and never changes.
_AS_IT_WAS: Final = """
UPDATE worlds w SET id_sequence = r.id_sequence, clock_frozen_at = r.clock_frozen_at, clock_offset = r.clock_offset,
    default_scenario = r.default_scenario, approvals_expire_after = r.approvals_expire_after,
    review_threshold = r.review_threshold
FROM snapshot_rows s CROSS JOIN LATERAL unnest(s.worlds) r
WHERE w.merchant_id = $1 AND s.merchant_id = $1 AND s.snapshot_id = $2 AND s.table_name = 'worlds'
RETURNING w.clock_frozen_at, w.clock_offset
"""

_STANDING_ROWS: Final = " + ".join(
    f"(SELECT count(*) FROM {table} WHERE merchant_id = $1)"  # noqa: S608 -- constants
    for table in _STANDING
)

_MAY_SKIP_KEYS: Final = "SELECT current_setting('is_superuser') = 'on'"

_NONE_STANDS: Final = "UPDATE snapshots SET stands = false WHERE merchant_id = $1"

# The world that was gone back to is the one that now goes on: of what was put away later nothing is left in it.
_WHO_STANDS: Final = """
UPDATE snapshots s SET stands = s.position IS NOT NULL AND (s.id = $2 OR ($3 AND s.stands AND s.position <= r.position))
FROM snapshots r WHERE s.merchant_id = $1 AND r.merchant_id = $1 AND r.id = $2
"""

# What was under way is not any more: it is due again, and may arrive a second time.
_RELEASE: Final = """
UPDATE webhook_deliveries SET leased_until = NULL WHERE merchant_id = $1 AND leased_until IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class PutBack:
    """A snapshot that was put back, and the clock of the world as it is now."""

    name: str
    rows: int
    clock: Clock


async def count_rows(conn: "PoolConnectionProxy[Any]", merchant_id: str) -> int:
    """How many rows the world has; beyond LARGEST_SNAPSHOT, more than that."""
    count: int = await conn.fetchval(f"SELECT {_COUNTS}", merchant_id, LARGEST_SNAPSHOT + 1)
    return count


async def take_snapshot(conn: "PoolConnectionProxy[Any]", *arguments: object) -> "Record":
    """Put the world away under (merchant, id, name, the merchant's now, the host's time, an id); returns what is shown of it.

    The id parts those that the merchant has made from those that it will make.
    """
    record: Record | None = await conn.fetchrow(_TAKE, *arguments)
    assert record is not None
    return record


async def empty_world(conn: "PoolConnectionProxy[Any]", merchant_id: str) -> tuple[int | None, Decimal | None]:
    """Empty the world of all but its webhook endpoints, and begin its clock and ids anew.

    Returns the merchant's seed and its opening balance.
    """
    async with _unguarded(conn):
        await _empty(conn, merchant_id, kept=(ENDPOINTS, LOCK))
    await conn.execute(_NONE_STANDS, merchant_id)
    merchant = await conn.fetchrow(_BEGINS, merchant_id)
    assert merchant is not None
    await conn.execute(_BEGINNING, merchant_id, merchant["begins_at"])
    return merchant["seed"], merchant["opening_balance"]


async def put_back(conn: "PoolConnectionProxy[Any]", merchant_id: str, snapshot_id: str) -> PutBack | None:
    """Make the world what it was: rows, clock and ids; None, and nothing done, if there is no such snapshot."""
    record = await conn.fetchrow(_SNAPSHOT, merchant_id, snapshot_id)
    if record is None:
        return None
    async with _unguarded(conn) as without_keys:
        # With its keys guarded, the payouts that a transfer names cannot go before it.
        stands = record["stands"] and without_keys and await _cut_back(conn, merchant_id, record)
        kept = (*_STANDING, LOCK) if stands else (LOCK,)
        await _empty(conn, merchant_id, kept)
        inserts = (
            f"INSERT INTO {table} SELECT r.* FROM snapshot_rows s "  # noqa: S608 -- constants
            f"CROSS JOIN LATERAL unnest(s.{table}) r "
            f"WHERE s.merchant_id = $1 AND s.snapshot_id = $2 AND s.table_name = '{table}'"
            for table in reversed(WORLD)
            if table not in kept
        )
        await conn.execute(_at_once(inserts), merchant_id, snapshot_id)
    clock = await conn.fetchrow(_AS_IT_WAS, merchant_id, snapshot_id)
    assert clock is not None, "each snapshot holds the row of its world"
    await conn.execute(_RELEASE, merchant_id)
    await conn.execute(_WHO_STANDS, merchant_id, snapshot_id, stands)
    return PutBack(record["name"], record["rows"], Clock(clock["clock_frozen_at"], clock["clock_offset"]))


async def _cut_back(conn: "PoolConnectionProxy[Any]", merchant_id: str, snapshot: "Record") -> bool:
    """Take away what was written behind a snapshot's position; whether all that it holds, and nothing else, is left then.

    They are told apart by their ids, which begin with the merchant's time. If the host's clock was set back, later rows are
    left: hence the count. (A snapshot that would have rows behind its own position has none, and never stands.)
    """
    for table in _STANDING:
        await conn.execute(
            f"DELETE FROM {table} WHERE merchant_id = $1 AND id > $2",  # noqa: S608 -- constants
            merchant_id,
            snapshot["position"],
        )
    left: int = await conn.fetchval(f"SELECT {_STANDING_ROWS}", merchant_id)
    expected: int = snapshot["standing_rows"]
    return left == expected


@asynccontextmanager
async def _unguarded(conn: "PoolConnectionProxy[Any]") -> AsyncIterator[bool]:
    """Work as the owner, who may delete what others may not, and without foreign keys where he may leave them out.

    Tells whether he may.

    To look, for each row that goes, for others that still name it costs four times the deleting, and finds nothing: they go
    in this same transaction. What is put back stood under the same keys. Only a superuser may leave it out, as the embedded
    store's owner is.
    """
    async with as_owner(conn):
        may_skip: bool = await conn.fetchval(_MAY_SKIP_KEYS)
        if may_skip:
            await conn.execute("SET LOCAL session_replication_role = replica")
        yield may_skip
        if may_skip:
            await conn.execute("SET LOCAL session_replication_role = origin")


async def _empty(conn: "PoolConnectionProxy[Any]", merchant_id: str, kept: Collection[str]) -> None:
    await conn.execute(_LOCK_DELIVERIES, merchant_id)
    # Statements of their own: an attempt that was being recorded while its delivery went is seen by the second alone, and no
    # foreign key may be there to take it along.
    for tables in (LOCKED_BY_OTHERS, [table for table in WORLD if table not in (*LOCKED_BY_OTHERS, *kept)]):
        deletes = (f"DELETE FROM {table} WHERE merchant_id = $1" for table in tables)  # noqa: S608 -- constants
        await conn.execute(_at_once(deletes), merchant_id)


def _at_once(statements: Iterable[str]) -> str:
    """Statements as one: to ask for one after the other takes longer than all that they do in a small world.

    Foreign keys are looked at when all of it is done.
    """
    *parts, last = statements
    return f"WITH {', '.join(f'part_{number} AS ({part})' for number, part in enumerate(parts))} {last}"
