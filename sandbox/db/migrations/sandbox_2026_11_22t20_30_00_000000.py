"""Endpoints that sign with Ed25519 show their public key.

The column has no default: snapshots contain rows of the table, so a column can be added only without one.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T20:30:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Public keys of webhook endpoints"

STATEMENTS = ("ALTER TABLE webhook_endpoints ADD COLUMN IF NOT EXISTS public_key text",)


async def forwards() -> MigrationManager:
    """Add the column if it does not exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def add() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(add)
    return manager
