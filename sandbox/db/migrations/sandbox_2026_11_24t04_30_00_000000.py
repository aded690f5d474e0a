"""Receiver tests can use a signature of one's own."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-24T04:30:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Receiver tests with a signature of one's own"


STATEMENTS = (
    "ALTER TABLE receiver_tests DROP CONSTRAINT IF EXISTS receiver_tests_signing_check",
    """
    ALTER TABLE receiver_tests ADD CONSTRAINT receiver_tests_signing_check
        CHECK (signing IN ('v1', 'v1a', 'stripe', 'github', 'custom'))
    """,
)


async def forwards() -> MigrationManager:
    """Replace the constraint."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def run() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(run)
    return manager
