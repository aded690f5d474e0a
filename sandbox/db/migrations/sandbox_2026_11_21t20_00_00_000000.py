"""Snapshots include the time after which approvals expire."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-21T20:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Approvals that expire, in snapshots"

STATEMENTS = (
    # Null: they never expire, as in `merchants`. Existing snapshots have null.
    "ALTER TABLE snapshots ADD COLUMN IF NOT EXISTS approvals_expire_after interval",
)


async def forwards() -> MigrationManager:
    """Add the column if it does not exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
