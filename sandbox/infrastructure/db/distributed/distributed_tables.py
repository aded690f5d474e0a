"""The tables of a distributed database: which are distributed, and how to distribute the others.

A table with a merchant_id is distributed by it, in the same shards as `merchants`. Every node has a copy of the other tables.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any, Final, TypeAlias

import asyncpg

from sandbox.infrastructure.db.statements import read_statements

Connection: TypeAlias = "asyncpg.Connection[Any]"

ANCHOR: Final = "merchants"
"""The table that decides about the shards of all others."""

_SQL: Final = read_statements(__name__)
# In one transaction, Citus reads and writes several tables with foreign keys over one connection to each node only.
_SETTINGS: Final = "SET LOCAL citus.multi_shard_modify_mode = 'sequential'; SET LOCAL statement_timeout = 0"
_LOCK_SECONDS: Final = 10
_HASHED, _REFERENCE = "hs", "nt"
"""Citus's codes for the two kinds of tables."""


class DistributionError(RuntimeError):
    """The database cannot be distributed, or is distributed in another way. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class SandboxTable:
    """A table of the sandbox. `by_merchant`: whether it has a merchant_id. `bytes` is its size, with indexes, on this node."""

    oid: int
    name: str
    by_merchant: bool
    bytes: int
    is_distributed: bool


@dataclass(frozen=True, slots=True)
class Content:
    """How many rows a table has, and a checksum of them that does not depend on their order."""

    rows: int
    checksum: int


async def read_tables(conn: Connection, role: str) -> list[SandboxTable]:
    """Return the tables that are granted to `role`, in an order in which they can be distributed.

    On a distributed database, `conn` must be a connection to the coordinator. Raises DistributionError if a table is
    distributed in another way than the sandbox needs.
    """
    distributed = {}
    if await conn.fetchval("SELECT to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL"):
        distributed = {record["oid"]: record for record in await conn.fetch(_SQL["distributed"])}
    records = await conn.fetch(_SQL["tables"], role)
    anchor = next((distributed.get(record["oid"]) for record in records if record["name"] == ANCHOR), None)
    group = None if anchor is None else anchor["colocationid"]
    tables: dict[int, SandboxTable] = {}
    for record in records:
        found = distributed.get(record["oid"])
        is_distributed = found is not None and found["method"] != "ns"  # a local table that is in Citus's catalogue
        if found is not None and is_distributed:
            if record["by_merchant"]:
                is_right = found["method"] == _HASHED and found["by_column"] == "merchant_id" and found["colocationid"] == group
            else:
                is_right = found["method"] == _REFERENCE
            if not is_right:
                raise DistributionError(
                    f"The table {record['name']} is distributed in another way than the sandbox needs. Make it a local table "
                    f"(SELECT undistribute_table('{record['name']}')), then run psp distribute again."
                )
        tables[record["oid"]] = SandboxTable(
            record["oid"], record["name"], record["by_merchant"], record["bytes"], is_distributed
        )
    needs = [(record["source"], record["target"]) for record in await conn.fetch(_SQL["needs"])]
    return in_order(tables.values(), needs)


async def read_content(conn: Connection, table: SandboxTable) -> Content:
    """Count the table's rows and compute their checksum."""
    columns = await conn.fetchval(_SQL["columns"], table.oid)
    # The hashes are hashed again, because the sum of the inner ones stays the same if rows exchange values.
    row_hash = f"hashint8extended(hash_record_extended(ROW ({columns}), 0), 0)"
    record = await conn.fetchrow(f"SELECT count(*), coalesce(sum({row_hash}), 0) FROM {table.name}")  # noqa: S608 -- names
    assert record is not None
    return Content(record[0], int(record[1]))


def in_order(tables: Iterable[SandboxTable], needs: Iterable[tuple[int, int]]) -> list[SandboxTable]:
    """Return the tables in the order of distribution: each after those that it needs, given as pairs of oids.

    The tables without a merchant_id come first, and then `merchants`.
    """
    by_oid = {table.oid: table for table in tables}
    ranks = {table.oid: _rank(table) for table in by_oid.values()}
    sorter = TopologicalSorter({oid: [other for other in ranks if ranks[other] < ranks[oid]] for oid in ranks})
    for source, target in needs:
        if source != target and source in by_oid and target in by_oid:
            sorter.add(source, target)
    return [by_oid[oid] for oid in sorter.static_order()]


def _rank(table: SandboxTable) -> int:
    return 0 if not table.by_merchant else 1 if table.name == ANCHOR else 2


async def distribute_tables(
    conn: Connection, tables: Sequence[SandboxTable], shards: int, on_copied: Callable[[SandboxTable, Content], None]
) -> None:
    """Distribute tables in this order, and check that each has the same rows as before. `shards` is for the first time.

    `conn` is a connection to the coordinator, in a transaction: if anything fails, roll it back. Other sessions wait from now
    until the transaction ends. Calls `on_copied` after each table. Raises DistributionError, and asyncpg's errors.
    """
    await conn.execute(f"{_SETTINGS}; SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
    try:
        await conn.execute(f"LOCK TABLE {', '.join(table.name for table in tables)} IN ACCESS EXCLUSIVE MODE")
    except asyncpg.LockNotAvailableError:
        raise DistributionError(
            "Another session uses the tables. End its transaction (see pg_stat_activity), then try again."
        ) from None
    await conn.execute("SET LOCAL lock_timeout = 0")
    before = {table: await read_content(conn, table) for table in tables}
    for table in tables:
        if not table.by_merchant:
            await conn.execute("SELECT create_reference_table($1::text::regclass)", table.name)
        elif table.name == ANCHOR:
            statement = (
                "SELECT create_distributed_table($1::text::regclass, 'merchant_id', colocate_with => 'none', shard_count => $2)"
            )
            await conn.execute(statement, table.name, shards)
        else:
            await conn.execute(
                "SELECT create_distributed_table($1::text::regclass, 'merchant_id', colocate_with => $2)", table.name, ANCHOR
            )
        after = await read_content(conn, table)
        if after != before[table]:
            raise DistributionError(
                f"After it was distributed, the table {table.name} has {after.rows:,} rows with the checksum {after.checksum}, "
                f"but it had {before[table].rows:,} with {before[table].checksum}. Everything is as it was before."
            )
        on_copied(table, after)
    for table in reversed(tables):  # the coordinator still has its copy of the rows
        await conn.execute("SELECT truncate_local_data_after_distributing_table($1::text::regclass)", table.name)


async def complete(conn: Connection, role: str) -> list[str]:
    """Distribute the tables that a distributed database has as local tables, because a migration has added them.

    `conn` is a connection to the coordinator. The caller holds the lock of migrations. Returns the tables' names; none if the
    database is not distributed. Raises DistributionError, and asyncpg's errors.
    """
    tables = await read_tables(conn, role)
    if not any(table.is_distributed for table in tables if table.name == ANCHOR):
        return []
    missing = [table for table in tables if not table.is_distributed]
    if missing:
        async with conn.transaction():
            await distribute_tables(conn, missing, 0, lambda *_: None)
    return [table.name for table in missing]
