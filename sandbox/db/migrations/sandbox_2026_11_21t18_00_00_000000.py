"""A restore leaves what stands as it was: the ledger, the events and the users' transactions are only ever added to."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-21T18:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "What of a snapshot still stands"

STATEMENTS = (
    # `position` parts the ids made before a snapshot from those made after it. While `stands` is true, each row of the tables
    # that are only added to is in the world as it was put away, with nothing but later ones behind it.
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
    """Add the columns, or find them there."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
