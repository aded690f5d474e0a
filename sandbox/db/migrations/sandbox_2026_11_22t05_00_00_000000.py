"""Timelines contain the id of the key that requested a change."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T05:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "The actor of a change"

STATEMENTS = (
    # Null for changes by the worker or a bank, and for earlier changes. No foreign key: a key is deleted only together with its
    # merchant, and a revoked key keeps its row.
    "ALTER TABLE events ADD COLUMN IF NOT EXISTS actor uuid",
)


async def forwards() -> MigrationManager:
    """Add the column if it does not exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
