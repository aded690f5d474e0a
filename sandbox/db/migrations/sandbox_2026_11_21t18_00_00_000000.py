"""A restore keeps existing rows of append-only tables: the ledger, the events and the users' transactions."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-21T18:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Snapshots that are still intact"

STATEMENTS = (
    # `position` separates the ids created before a snapshot from those created after it. While `stands` is true, the world
    # still has all rows of the snapshot's append-only tables, and all other rows of these tables have later ids.
    """
    ALTER TABLE snapshots
        ADD COLUMN IF NOT EXISTS position uuid,
        ADD COLUMN IF NOT EXISTS standing_rows integer,
        ADD COLUMN IF NOT EXISTS stands boolean NOT NULL DEFAULT false,
        DROP CONSTRAINT IF EXISTS snapshots_stand_somewhere,
        ADD CONSTRAINT snapshots_stand_somewhere CHECK (NOT stands OR (position IS NOT NULL AND standing_rows IS NOT NULL))
    """,
)


async def forwards() -> MigrationManager:
    """Add the columns that do not exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
