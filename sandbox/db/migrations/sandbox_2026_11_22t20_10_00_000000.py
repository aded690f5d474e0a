"""Receiver tests: what `psp certify` found out about a merchant's webhook receiver."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T20:10:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Receiver tests"

# Not part of a merchant's world: a reset or a restore changes nothing about a receiver outside the sandbox.
STATEMENTS = (
    """
    CREATE TABLE IF NOT EXISTS receiver_tests (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        id uuid NOT NULL,
        url text NOT NULL,
        probe_url text,
        signing text NOT NULL CHECK (signing IN ('v1', 'v1a', 'stripe', 'github')),
        is_finished boolean NOT NULL,
        interrupted boolean NOT NULL,
        findings jsonb NOT NULL,
        created_at timestamptz NOT NULL,
        heartbeat_at timestamptz NOT NULL,
        PRIMARY KEY (merchant_id, id)
    )
    """,
    "GRANT SELECT, INSERT, UPDATE, DELETE ON receiver_tests TO psp_app",
)


async def forwards() -> MigrationManager:
    """Create the table, unless it exists."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
