"""A timeline says whose key asked for a change."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T05:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "The actor of a change"

STATEMENTS = (
    # Null for the worker, for banks, and for what happened before. No reference: a key may be deleted with its merchant only,
    # and events outlive a key's revocation.
    "ALTER TABLE events ADD COLUMN IF NOT EXISTS actor uuid",
)


async def forwards() -> MigrationManager:
    """Add the column, or find it there."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
