"""How long a merchant's payouts wait for approval."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-21T19:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Approvals that expire"

STATEMENTS = (
    # Null: they never expire.
    "ALTER TABLE merchants ADD COLUMN IF NOT EXISTS approvals_expire_after interval CHECK (approvals_expire_after > '0')",
)


async def forwards() -> MigrationManager:
    """Add the column if it does not exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
