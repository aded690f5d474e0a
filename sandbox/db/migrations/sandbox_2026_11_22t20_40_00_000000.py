"""A bulk credit keeps the trace of its upload, so that its event's webhooks belong to it."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T20:40:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Traces of bulk credits"

STATEMENTS = ("ALTER TABLE bulk_credits ADD COLUMN IF NOT EXISTS traceparent text",)


async def forwards() -> MigrationManager:
    """Add the column."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def add() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(add)
    return manager
