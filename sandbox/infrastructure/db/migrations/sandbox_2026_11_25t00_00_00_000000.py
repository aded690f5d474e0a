"""The tables of version 0.1.0. Raw SQL, because Piccolo does not support composite keys."""

from pathlib import Path

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.infrastructure.db.engine import ENGINE

ID = "2026-11-25T00:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Version 0.1.0"


async def forwards() -> MigrationManager:
    """Create what does not exist: this runs again if the process ends before Piccolo has recorded the migration."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        transaction = ENGINE.current_transaction.get()
        assert transaction is not None, "Piccolo runs a migration in a transaction"
        await transaction.connection.execute(Path(__file__).with_name("schema_0_1_0.sql").read_text("utf-8"))

    manager.add_raw(create)
    return manager
