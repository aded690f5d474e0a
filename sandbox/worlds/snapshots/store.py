"""Empty a merchant's world, save it as arrays of rows, and restore it.

The caller holds the merchant's lock. To empty or restore a world, its transaction works as the database's owner.
"""

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from uuid import UUID

from asyncpg import Record

from sandbox.domain.clock import Clock
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.worlds.merchants.tables import ENDPOINTS, WORLD, WORLDS_TABLE

MAX_SNAPSHOT_ROWS: Final = 100_000
"""Maximum rows in a snapshot."""
_ROWS_PER_PART: Final = 250
"""Rows per array. The largest rows are stored responses to batches, of about a megabyte each."""

_APPEND_ONLY: Final = ("user_transactions", "events", "transfers")
"""Tables whose rows never change. To restore them, it is enough to delete the rows that were added after the snapshot.

They have no foreign keys, so the rows that they refer to can be deleted and inserted again.
"""

_COUNTS: Final = " + ".join(
    f"(SELECT count(*) FROM (SELECT 1 FROM {table} WHERE merchant_id = $1 LIMIT $2) t)"  # noqa: S608 -- constants
    for table in WORLD
)
_NO_LATER_ROWS: Final = " AND ".join(
    f"NOT EXISTS (SELECT 1 FROM {table} WHERE merchant_id = $1 AND id > $6)"  # noqa: S608 -- constants
    for table in _APPEND_ONLY
)
_INSERT_SNAPSHOT: Final = f"""
INSERT INTO snapshots (merchant_id, id, name, rows, size, clock_at, created_at, position, intact_rows, is_intact)
SELECT $1, $2, $3, 0, 0, $4, $5, CASE WHEN p.is_last THEN $6::uuid END, 0, p.is_last
FROM (SELECT {_NO_LATER_ROWS} AS is_last) p
"""  # noqa: S608 -- constants


def _parts(table: str) -> str:
    # The first of the combined queries gives the columns their types.
    rows = ", ".join(
        "array_agg(r)" if other == table else f"NULL::public.{other}[]" if table == WORLD[0] else "NULL" for other in WORLD
    )
    # Rows are stored in the type of the table itself, also where `table` is a view: its rows have another type.
    return (
        f"SELECT $1::uuid, $2::uuid, '{table}', part, {rows} FROM ("  # noqa: S608 -- constants
        f"SELECT ROW (t.*)::public.{table} AS r, ((row_number() OVER () - 1) / {_ROWS_PER_PART})::int AS part "
        f"FROM {table} t WHERE t.merchant_id = $1) p GROUP BY part"
    )


# A single statement, so that the snapshot is consistent: webhook deliveries and the aggregator's tables change without the
# merchant's lock.
_INSERT_ROWS: Final = f"""
INSERT INTO snapshot_rows (merchant_id, snapshot_id, table_name, part, {", ".join(WORLD)})
{" UNION ALL ".join(_parts(table) for table in WORLD)}
RETURNING table_name, coalesce({", ".join(f"cardinality({table})" for table in WORLD)}) AS count,
    coalesce({", ".join(f"pg_column_size({table})" for table in WORLD)}) AS size
"""
_SQL: Final = read_statements(__name__)

_COUNT_APPEND_ONLY: Final = " + ".join(
    f"(SELECT count(*) FROM {table} WHERE merchant_id = $1)"  # noqa: S608 -- constants
    for table in _APPEND_ONLY
)


@dataclass(frozen=True, slots=True)
class RestoredWorld:
    """The snapshot that was restored, and the world's clock after the restore."""

    name: str
    rows: int
    clock: Clock


async def count_rows(conn: Connection, merchant_id: str) -> int:
    """Return the number of rows of the world. If it exceeds MAX_SNAPSHOT_ROWS, counting stops early."""
    count: int = await conn.fetchval(f"SELECT {_COUNTS}", merchant_id, MAX_SNAPSHOT_ROWS + 1)
    return count


async def take_snapshot(conn: Connection, merchant_id: str, snapshot_id: str, *arguments: object) -> Record:
    """Save the world as a snapshot, and return the snapshot's row.

    `arguments` are its name, the merchant's time, the host's time, and a fresh id of the merchant. The fresh id separates
    existing rows, with smaller ids, from later ones.
    """
    await conn.execute(_INSERT_SNAPSHOT, merchant_id, snapshot_id, *arguments)
    parts = await conn.fetch(_INSERT_ROWS, merchant_id, snapshot_id)
    count, size = sum(part["count"] for part in parts), sum(part["size"] for part in parts)
    append_only = sum(part["count"] for part in parts if part["table_name"] in _APPEND_ONLY)
    record: Record | None = await conn.fetchrow(_SQL["count_snapshot"], merchant_id, snapshot_id, count, size, append_only)
    assert record is not None
    return record


async def empty_world(conn: Connection, merchant_id: str) -> tuple[int | None, Decimal | None]:
    """Delete everything in the world except its webhook endpoints, and reset its clock and ids.

    Returns the merchant's seed and opening balance.
    """
    async with _without_foreign_keys(conn):
        await _empty(conn, merchant_id, kept=(ENDPOINTS, WORLDS_TABLE))
    await conn.execute(_SQL["mark_none_intact"], merchant_id)
    merchant = await conn.fetchrow(_SQL["initial_values"], merchant_id)
    assert merchant is not None
    await conn.execute(_SQL["reset_state"], merchant_id, merchant["begins_at"])
    return merchant["seed"], merchant["opening_balance"]


async def restore_world(conn: Connection, merchant_id: str, snapshot_id: str) -> RestoredWorld | None:
    """Restore the world's rows, clock and ids from a snapshot. Returns None and changes nothing if the snapshot is unknown."""
    record = await conn.fetchrow(_SQL["snapshot"], merchant_id, snapshot_id)
    if record is None:
        return None
    async with _without_foreign_keys(conn):
        is_intact = record["is_intact"] and await _delete_later_rows(conn, merchant_id, record)
        kept = (*_APPEND_ONLY, WORLDS_TABLE) if is_intact else (WORLDS_TABLE,)
        await _empty(conn, merchant_id, kept)
        inserts = (
            f"INSERT INTO {table} SELECT r.* FROM snapshot_rows s CROSS JOIN LATERAL unnest(s.{table}) r "  # noqa: S608 -- constants
            f"WHERE s.merchant_id = $1 AND s.snapshot_id = $2 AND s.table_name = '{table}'"
            for table in reversed(WORLD)  # referenced rows first
            if table not in kept
        )
        await _execute_all(conn, inserts, merchant_id, snapshot_id)
    clock = await conn.fetchrow(_SQL["restore_state"], merchant_id, snapshot_id)
    assert clock is not None, "every snapshot contains the row of its world"
    await conn.execute(_SQL["release"], merchant_id)
    await conn.execute(_SQL["mark_intact"], merchant_id, snapshot_id, is_intact)
    return RestoredWorld(record["name"], record["rows"], Clock(clock["clock_frozen_at"], clock["clock_offset"]))


async def clear_world(conn: Connection, merchant_id: str) -> None:
    """Delete everything in the world but its row in `worlds`, also its webhook endpoints. Its snapshots stay restorable."""
    async with _without_foreign_keys(conn):
        await _empty(conn, merchant_id, kept=(WORLDS_TABLE,))
    await conn.execute(_SQL["mark_none_intact"], merchant_id)


async def _delete_later_rows(conn: Connection, merchant_id: str, snapshot: Record) -> bool:
    """Delete the append-only rows with ids after a snapshot's position. Return whether exactly the snapshot's rows remain.

    Ids begin with the merchant's time. If the host's clock was set back, later rows can have smaller ids and remain, so also
    compare the count. (If a snapshot contains rows with ids after its position, it has no position and is never intact.)
    """
    for table in _APPEND_ONLY:
        await conn.execute(
            f"DELETE FROM {table} WHERE merchant_id = $1 AND id > $2",  # noqa: S608 -- constants
            merchant_id,
            snapshot["position"],
        )
    remaining: int = await conn.fetchval(f"SELECT {_COUNT_APPEND_ONLY}", merchant_id)
    expected: int = snapshot["intact_rows"]
    return remaining == expected


@asynccontextmanager
async def _without_foreign_keys(conn: Connection) -> AsyncIterator[None]:
    """Work without foreign key checks, if the database's owner can disable them.

    The checks take longer than the deletes and find nothing: referencing rows are deleted in the same transaction, and restored
    rows satisfied the same keys before. Only a superuser can disable the checks; the owner of the embedded database is one.
    """
    may_skip: bool = await conn.fetchval(_SQL["may_skip_keys"])
    if may_skip:
        await conn.execute("SET LOCAL session_replication_role = replica")
    yield
    if may_skip:
        await conn.execute("SET LOCAL session_replication_role = origin")


async def _empty(conn: Connection, merchant_id: str, kept: Collection[str]) -> None:
    """Delete the rows of all tables but `kept`, referencing rows first.

    Each statement sees what other transactions wrote while an earlier one waited for their locks. An attempt that was recorded
    meanwhile is therefore deleted after its delivery; no foreign key deletes the two together.
    """
    await conn.execute(_SQL["lock_deliveries"], merchant_id)
    deletes = (f"DELETE FROM {table} WHERE merchant_id = $1" for table in WORLD if table not in kept)  # noqa: S608 -- constants
    await _execute_all(conn, deletes, merchant_id)


async def _execute_all(conn: Connection, statements: Iterable[str], *ids: str) -> None:
    """Run statements one after the other, in one round trip: in a small world, one each would take longer than the work.

    PostgreSQL accepts several statements only without parameters. So their parameters, which are UUIDs, are written out.
    """
    script = "; ".join(statements)
    for number, id_ in enumerate(ids, 1):
        script = script.replace(f"${number}", f"'{UUID(id_)}'")
    await conn.execute(script)
