"""The lease of a merchant's clock."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-21T12:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Clock leases"

STATEMENTS = (
    # In the host's time. The holder renews it; if the holder dies, the lease expires within seconds.
    """
    ALTER TABLE merchants
        ADD COLUMN IF NOT EXISTS clock_held_by uuid,
        ADD COLUMN IF NOT EXISTS clock_held_until timestamptz
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
