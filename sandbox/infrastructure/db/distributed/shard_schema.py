"""Prepare a shard's schema: a view of each table's rows in the shard, and the database functions.

With the schema as its search_path, all SQL of the product works on the shard's tables directly. Citus plans none of it. So
statements cost the same as on plain PostgreSQL, and every feature of SQL works. Measured beside it: statements that Citus plans
on the owning node need 2 to 3 times as much CPU per payout.

Citus may move a shard to another node. `psp_enter` therefore takes the lock that Citus's own writes take: a move waits for
the transactions that hold it, and later transactions find that the shard is gone.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg

from sandbox.infrastructure.db.distributed.cluster import Shard
from sandbox.infrastructure.db.functions import MIGRATION_LOCK, function_sources, functions_digest
from sandbox.infrastructure.db.statements import read_statements

SHARD_MOVED: Final = "PSP01"
"""The SQLSTATE of `psp_enter` and `psp_check` on a node that does not have the shard any more."""
NODE_SETTINGS: Final = {"citus.enable_ddl_propagation": "off", "citus.override_table_visibility": "off"}
"""Settings of a connection that changes a shard's schema: its objects exist on this node only, and it sees shards."""

_SQL: Final = read_statements(__name__)

# Citus's executor takes the same lock (ShareLock is 5) before it writes to a shard; a move takes it in a conflicting mode on
# all nodes, copies the last changes, and then changes the placement. So after the lock, the placement is up to date until the
# transaction ends. The lock function wants the owner of the tables, so this function runs as the owner.
_ENTER: Final = """
CREATE FUNCTION {schema}.psp_enter() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    PERFORM lock_shard_metadata(5, ARRAY[{shard}]);
    PERFORM {schema}.psp_check();
END
$function$
"""
_CHECK: Final = """
CREATE FUNCTION {schema}.psp_check() RETURNS void LANGUAGE plpgsql AS $function$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM pg_catalog.pg_dist_placement p
        JOIN pg_catalog.pg_dist_local_group l ON l.groupid = p.groupid
        WHERE p.shardid = {shard}
    ) THEN
        RAISE EXCEPTION 'shard {shard} has moved to another node' USING ERRCODE = '{moved}';
    END IF;
END
$function$
"""


async def find_prepared(conn: "asyncpg.Connection[Any]", shards: Sequence[Shard]) -> set[Shard]:
    """Return those of a node's shards whose schemas are there and up to date."""
    tables = await _tables_of(conn, shards)
    rows = await conn.fetch(_SQL["found"], [shard.schema for shard in shards])
    found = {row["nspname"]: (row["digest"], row["views"]) for row in rows}
    return {shard for shard in shards if found.get(shard.schema) == (_digest(tables[shard.id]), len(tables[shard.id]))}


async def _tables_of(conn: "asyncpg.Connection[Any]", shards: Sequence[Shard]) -> Mapping[int, Sequence[tuple[str, str]]]:
    """Return, by the id of the shard, the names of all tables and of the tables with their rows in the shard."""
    tables: defaultdict[int, list[tuple[str, str]]] = defaultdict(list)
    for row in await conn.fetch(_SQL["tables"], [shard.id for shard in shards]):
        tables[row["shard"]].append((row["name"], row["shard_table"]))
    return tables


def _digest(tables: Sequence[tuple[str, str]]) -> str:
    """Return the comment of a schema that is up to date."""
    version = [functions_digest(), _ENTER, _CHECK, *(shard_table for _, shard_table in tables)]
    return hashlib.sha256("\n".join(version).encode()).hexdigest()


async def prepare_shard(conn: "asyncpg.Connection[Any]", shard: Shard, role: str) -> None:
    """Create the shard's schema for `role` on its node, unless it is there and up to date.

    `conn` is a connection to the node as the tables' owner, with NODE_SETTINGS. Waits for migrations in progress.
    """
    async with conn.transaction():
        await conn.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
        if await find_prepared(conn, [shard]):  # another process was faster
            return
        tables = (await _tables_of(conn, [shard]))[shard.id]
        schema, names = shard.schema, {"schema": shard.schema, "shard": shard.id, "moved": SHARD_MOVED}
        await conn.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; SET LOCAL search_path = {schema}")
        for name, shard_table in tables:
            # security_invoker: the view grants the application's role no more rights than the table does.
            await conn.execute(
                f"CREATE VIEW {name} WITH (security_invoker = true) AS SELECT * FROM public.{shard_table}"  # noqa: S608 -- names of tables
            )
        for source in (_CHECK.format(**names), _ENTER.format(**names), *function_sources().values()):
            await conn.execute(source)
        await conn.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}")
        await conn.execute(f"COMMENT ON SCHEMA {schema} IS '{_digest(tables)}'")


async def drop_shard_schemas(conn: "asyncpg.Connection[Any]") -> None:
    """Drop all shards' schemas on the node, because views would keep a migration from changing columns.

    Processes prepare them again when they next need them.
    """
    for record in await conn.fetch(_SQL["schemas"]):
        await conn.execute(f"DROP SCHEMA IF EXISTS {record['nspname']} CASCADE")
