"""`python -m sandbox.db.migrate`: migrate the database at DATABASE_URL to the newest schema."""

import asyncio
import contextlib
import functools
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from sandbox.db.engine import ENGINE
from sandbox.db.functions import MIGRATION_LOCK, install_functions

_PROGRAM = Path(__file__).parent.parent
_FOLDER = _PROGRAM / "db" / "migrations"
_OLDEST_VERSION = 150000
_ID = re.compile(r'^ID = "([^"]+)"', re.MULTILINE)


class MigrationError(RuntimeError):
    """The database cannot be migrated; the message says why."""


@functools.cache
def migration_ids() -> frozenset[str]:
    """Return the ids of all migrations of this release, as the table `migration` stores them after they have run."""
    return frozenset(found[1] for path in _FOLDER.glob("sandbox_*.py") if (found := _ID.search(path.read_text())))


async def completed_migrations(conn: "asyncpg.Connection[Any] | PoolConnectionProxy[Any]") -> set[str]:
    """Return the ids of the migrations that have run. Raises UndefinedTableError if none has."""
    return {record["name"] for record in await conn.fetch("SELECT name FROM migration WHERE app_name = 'sandbox'")}


async def migrate(database_url: str) -> str:
    """Run all pending migrations and return Piccolo's report. Raises MigrationError.

    Safe to run again, and in several processes at once.
    """
    # Piccolo's migration manager finds its engine only through this variable.
    os.environ["PICCOLO_CONF"] = "sandbox.db.piccolo_conf"
    try:
        conn = await asyncpg.connect(database_url, timeout=10)
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        raise MigrationError(f"Cannot connect to DATABASE_URL: {type(error).__name__}: {error}") from error
    try:
        version = int(await conn.fetchval("SHOW server_version_num"))
        if version < _OLDEST_VERSION:
            raise MigrationError(f"PostgreSQL 15 or newer is required, but this server is version {version // 10000}.")
        with contextlib.suppress(asyncpg.UndefinedTableError):
            # Piccolo needs half a second to find that there is nothing to do.
            if migration_ids() <= await completed_migrations(conn):
                await install_functions(conn)
                return "All migrations have run.\n"
        from piccolo.apps.migrations.commands.forwards import run_forwards

        await conn.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
        ENGINE.config = {"dsn": database_url}
        await ENGINE.start_connection_pool(min_size=0, max_size=2)
        report = io.StringIO()
        try:
            with contextlib.redirect_stdout(report):
                result = await run_forwards(app_name="sandbox")
        finally:
            await ENGINE.close_connection_pool()
        if not result.success:
            raise MigrationError(f"A migration failed: {result.message}\n{report.getvalue()}")
        await install_functions(conn)
        return report.getvalue()
    finally:
        await conn.close()


def main() -> None:
    """Run the command. If migrating fails, print the reason in one line and exit with 1."""
    from sandbox.infrastructure.settings import Settings, SettingsError

    try:
        sys.stdout.write(asyncio.run(migrate(Settings.load().database_url)))
    except (MigrationError, SettingsError, asyncpg.PostgresError) as error:
        sys.exit(f"migrate: {error}")


if __name__ == "__main__":
    main()
