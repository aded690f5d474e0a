"""The operator's idempotency keys, the review threshold, and worlds whose clock is frozen from the start."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T04:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Operator keys, review threshold, initially frozen clocks"

STATEMENTS = (
    # They belong to no merchant: when a merchant is created it does not exist yet, and deleting it deletes the rows of all its
    # tables.
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
    # Null: no review. Existing worlds and snapshots get the amount from which payouts were reviewed so far.
    """
    ALTER TABLE merchants ADD COLUMN IF NOT EXISTS review_threshold numeric(14, 2) DEFAULT 100000.00
        CHECK (review_threshold > 0)
    """,
    "ALTER TABLE snapshots ADD COLUMN IF NOT EXISTS review_threshold numeric(14, 2) DEFAULT 100000.00",
    # The time at which the clock of a new or reset world is frozen; null: it runs.
    "ALTER TABLE merchants ADD COLUMN IF NOT EXISTS begins_at timestamptz",
)


async def forwards() -> MigrationManager:
    """Create the table and the columns that do not exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
