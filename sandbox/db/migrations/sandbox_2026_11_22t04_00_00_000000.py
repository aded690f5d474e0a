"""The operator's idempotency keys; from what amount on payouts are reviewed; and worlds that begin frozen."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T04:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Operator keys, review threshold, frozen beginnings"

STATEMENTS = (
    # They belong to no merchant: creating one has none yet, and deleting one takes its own tables away.
    """
    CREATE TABLE IF NOT EXISTS operator_keys (
        key text COLLATE "C" PRIMARY KEY,
        fingerprint bytea NOT NULL,
        status integer NOT NULL,
        body bytea NOT NULL,
        location text,
        expires_at timestamptz NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS operator_keys_lapse ON operator_keys (expires_at)",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON operator_keys TO psp_app",
    # Null for no review. Worlds, and snapshots of them, that are there already reviewed from this amount on.
    """
    ALTER TABLE merchants ADD COLUMN IF NOT EXISTS review_threshold numeric(14, 2) DEFAULT 100000.00
        CHECK (review_threshold > 0)
    """,
    "ALTER TABLE snapshots ADD COLUMN IF NOT EXISTS review_threshold numeric(14, 2) DEFAULT 100000.00",
    # At what time a new or reset world's clock stands still; null: it runs.
    "ALTER TABLE merchants ADD COLUMN IF NOT EXISTS begins_at timestamptz",
)


async def forwards() -> MigrationManager:
    """Make the table and the columns, or find them there."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
