"""`python -m sandbox.infrastructure.db.migrate`: migrate the database at DATABASE_URL to the newest schema."""

import asyncio
import contextlib
import functools
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import asyncpg

from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.distributed.cluster import Cluster, Node, read_cluster
from sandbox.infrastructure.db.distributed.distributed_tables import DistributionError, complete, read_tables
from sandbox.infrastructure.db.distributed.shard_schema import NODE_SETTINGS, drop_shard_schemas
from sandbox.infrastructure.db.engine import APPLICATION_ROLE, ENGINE
from sandbox.infrastructure.db.functions import MIGRATION_LOCK, install_functions

_FOLDER = Path(__file__).parent / "migrations"
_OLDEST_VERSION = 150000
_ID = re.compile(r'^ID = "([^"]+)"', re.MULTILINE)


class MigrationError(RuntimeError):
    """The database cannot be migrated; the message says why."""


@functools.cache
def migration_ids() -> frozenset[str]:
    """Return the ids of all migrations of this release, as the table `migration` stores them after they have run."""
    return frozenset(found[1] for path in _FOLDER.glob("sandbox_*.py") if (found := _ID.search(path.read_text())))


def refuse_newer(completed: set[str]) -> None:
    """Raise MigrationError if a newer version of the sandbox has migrated the database."""
    unknown = completed - migration_ids()
    if unknown:
        raise MigrationError(
            f"A newer version of the sandbox, or one before 0.1.0, has migrated this database ({len(unknown)} migrations that"
            f" this version does not know, the last one {max(unknown)}). Nothing was changed. Install that version again, or"
            " restore the backup from before the upgrade; `psp up` can also start on new data with --data DIR."
        )


async def completed_migrations(conn: "asyncpg.Connection[Any] | Connection") -> set[str]:
    """Return the ids of the migrations that have run. Raises UndefinedTableError if none has."""
    return {record["name"] for record in await conn.fetch("SELECT name FROM migration WHERE app_name = 'sandbox'")}


async def migrate(database_url: str, node: Node | None = None) -> str:
    """Run all pending migrations and return Piccolo's report. Raises MigrationError and DistributionError.

    `node` is another server than the one that the URL names. Safe to run again, and in several processes at the same time.
    """
    # Piccolo's migration manager finds its engine only through this variable.
    os.environ["PICCOLO_CONF"] = "sandbox.infrastructure.db.piccolo_conf"
    address: dict[str, Any] = {} if node is None else {"host": node.host, "port": node.port}
    try:
        conn = await asyncpg.connect(database_url, **address, timeout=10)
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        raise MigrationError(f"Cannot connect to DATABASE_URL: {type(error).__name__}: {error}") from error
    try:
        version = int(await conn.fetchval("SHOW server_version_num"))
        if version < _OLDEST_VERSION:
            raise MigrationError(f"PostgreSQL 15 or newer is required, but this server is version {version // 10000}.")
        cluster = await read_cluster(conn)
        with contextlib.suppress(asyncpg.UndefinedTableError):
            # Piccolo needs half a second to find that there is nothing to do.
            completed = await completed_migrations(conn)
            refuse_newer(completed)
            if migration_ids() <= completed:
                if cluster is None:
                    await install_functions(conn)
                elif not await _is_complete(database_url, cluster.nodes[0]):
                    return await _migrate_cluster(database_url, cluster)
                return "All migrations have run.\n"
        if cluster is None:
            await conn.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
            with contextlib.suppress(asyncpg.UndefinedTableError):
                refuse_newer(await completed_migrations(conn))  # a newer version may have had the lock until now
            report = await _run_migrations({"dsn": database_url, **address})
            await install_functions(conn)
            return report
    finally:
        await conn.close()
    return await _migrate_cluster(database_url, cluster)


async def _is_complete(database_url: str, coordinator: Node) -> bool:
    """Whether all tables are distributed. A migration may have added one, and been interrupted before that."""
    try:
        conn = await asyncpg.connect(database_url, host=coordinator.host, port=coordinator.port, timeout=10)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return True  # a sandbox can start without the coordinator
    try:
        return all(table.is_distributed for table in await read_tables(conn, APPLICATION_ROLE))
    finally:
        await conn.close()


async def _migrate_cluster(database_url: str, cluster: Cluster) -> str:
    """Migrate a distributed database. Its first node, the coordinator, forwards each change to the others.

    The shards' schemas are dropped before, because their views would forbid changes. They are not created again while the lock
    is held on each node.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def connect(node: Node, settings: dict[str, str]) -> "asyncpg.Connection[Any]":
            try:
                conn = await asyncpg.connect(database_url, host=node.host, port=node.port, timeout=10, server_settings=settings)
            except (OSError, asyncpg.PostgresError, TimeoutError) as error:
                raise MigrationError(f"Cannot connect to node {node}: {type(error).__name__}: {error}") from error
            stack.push_async_callback(conn.close)
            return conn

        for node in cluster.nodes:
            conn = await connect(node, NODE_SETTINGS)
            await conn.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
            if node == cluster.nodes[0]:
                with contextlib.suppress(asyncpg.UndefinedTableError):
                    refuse_newer(await completed_migrations(conn))  # a newer version may have had the lock until now
            await drop_shard_schemas(conn)
        coordinator = cluster.nodes[0]
        report = await _run_migrations({"dsn": database_url, "host": coordinator.host, "port": coordinator.port})
        added = await complete(await connect(coordinator, {}), APPLICATION_ROLE)
        return f"{report}Distributed: {', '.join(added)}.\n" if added else report


@contextlib.contextmanager
def without_black() -> Iterator[None]:
    """Let Piccolo import an empty module in place of `black`, which only its code generators use.

    Importing the real one takes half of the CPU time of migrating an empty database.
    """
    if "black" in sys.modules:
        yield
        return
    sys.modules["black"] = ModuleType("black")
    try:
        yield
    finally:
        del sys.modules["black"]


async def _run_migrations(config: dict[str, Any]) -> str:
    with without_black():
        from piccolo.apps.migrations.commands.forwards import run_forwards

    ENGINE.config = config
    await ENGINE.start_connection_pool(min_size=0, max_size=2)
    report = io.StringIO()
    try:
        with contextlib.redirect_stdout(report):
            result = await run_forwards(app_name="sandbox")
    finally:
        await ENGINE.close_connection_pool()
    if not result.success:
        raise MigrationError(f"A migration failed: {result.message}\n{report.getvalue()}")
    return report.getvalue()


def main() -> None:
    """Run the command. If migrating fails, print the reason in one line and exit with 1."""
    from sandbox.infrastructure.settings import Settings, SettingsError

    try:
        sys.stdout.write(asyncio.run(migrate(Settings.load().database_url)))
    except (MigrationError, DistributionError, SettingsError, asyncpg.PostgresError) as error:
        sys.exit(f"migrate: {error}")


if __name__ == "__main__":
    main()
