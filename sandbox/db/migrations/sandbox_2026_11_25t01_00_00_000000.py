"""A fault can spare the first matches.

The column has no default: snapshots contain rows of the table, so a column can be added only without one.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-25T01:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Faults that spare the first matches"

STATEMENTS = ("ALTER TABLE faults ADD COLUMN IF NOT EXISTS skip integer CHECK (skip BETWEEN 0 AND 1000000)",)


async def forwards() -> MigrationManager:
    """Add the column if it does not exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def add() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(add)
    return manager
