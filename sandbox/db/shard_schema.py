"""Prepare a shard's schema: a view of each table's rows in the shard, and the database functions.

With the schema as its search_path, all SQL of the product works on the shard's tables directly. Citus plans none of it. So it
costs what it costs on plain PostgreSQL, and every feature of SQL works. Measured beside it: statements that Citus plans on the
owning node need 2 to 3 times as much CPU per payout.

Citus may move a shard to another node. `psp_enter` therefore takes the lock that Citus's own writes take: a move waits for
the transactions that hold it, and later transactions find that the shard is gone.
"""

import hashlib
from typing import Any, Final

import asyncpg

from sandbox.db.cluster import Shard
from sandbox.db.functions import MIGRATION_LOCK, function_sources, functions_digest

SHARD_MOVED: Final = "PSP01"
"""The SQLSTATE of `psp_enter` and `psp_check` on a node that does not have the shard any more."""
NODE_SETTINGS: Final = {"citus.enable_ddl_propagation": "off", "citus.override_table_visibility": "off"}
"""Settings of a connection that changes a shard's schema: its objects exist on this node only, and it sees shards."""

_TABLES: Final = """
SELECT c.relname AS name, c.relname || '_' || s.shardid AS shard_table
FROM pg_dist_shard anchor
JOIN pg_dist_partition a ON a.logicalrelid = anchor.logicalrelid
JOIN pg_dist_partition t ON t.colocationid = a.colocationid AND t.partmethod = 'h'
JOIN pg_dist_shard s ON s.logicalrelid = t.logicalrelid AND s.shardminvalue = anchor.shardminvalue
JOIN pg_class c ON c.oid = t.logicalrelid
WHERE anchor.shardid = $1 ORDER BY c.relname
"""
_COMMENT: Final = "SELECT obj_description(to_regnamespace($1), 'pg_namespace')"
_VIEWS: Final = "SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace($1) AND relkind = 'v'"
_SCHEMAS: Final = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'psp\\_shard\\_%'"

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


async def prepare_shard(conn: "asyncpg.Connection[Any]", shard: Shard, role: str) -> None:
    """Create the shard's schema for `role` on its node, unless it is there and up to date.

    `conn` is a connection to the node as the tables' owner, with NODE_SETTINGS. Waits for migrations in progress.
    """
    tables = await conn.fetch(_TABLES, shard.id)
    version = [functions_digest(), _ENTER, _CHECK, *(record["shard_table"] for record in tables)]
    digest = hashlib.sha256("\n".join(version).encode()).hexdigest()

    async def is_current() -> bool:
        # When Citus drops the tables of a shard that has moved away, it drops their views too.
        comment, views = await conn.fetchval(_COMMENT, shard.schema), await conn.fetchval(_VIEWS, shard.schema)
        return bool(comment == digest and views == len(tables))

    if await is_current():
        return
    async with conn.transaction():
        await conn.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
        if await is_current():  # another process was faster
            return
        schema, names = shard.schema, {"schema": shard.schema, "shard": shard.id, "moved": SHARD_MOVED}
        await conn.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; SET LOCAL search_path = {schema}")
        for record in tables:
            # With the invoker's rights: the application's role can do with the rows what it can do with the table.
            await conn.execute(
                f"CREATE VIEW {record['name']} WITH (security_invoker = true) AS SELECT * FROM public.{record['shard_table']}"  # noqa: S608 -- names of tables
            )
        for source in (_CHECK.format(**names), _ENTER.format(**names), *function_sources().values()):
            await conn.execute(source)
        await conn.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}")
        await conn.execute(f"COMMENT ON SCHEMA {schema} IS '{digest}'")


async def drop_shard_schemas(conn: "asyncpg.Connection[Any]") -> None:
    """Drop all shards' schemas on the node, because views would keep a migration from changing columns.

    Processes prepare them again when they next need them.
    """
    for record in await conn.fetch(_SCHEMAS):
        await conn.execute(f"DROP SCHEMA IF EXISTS {record['nspname']} CASCADE")
