"""The initial values that a reset restores, and snapshots of a merchant's world."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-21T13:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Resets and snapshots"

STATEMENTS = (
    "ALTER TABLE merchants ADD COLUMN IF NOT EXISTS opening_balance numeric(20, 2) CHECK (opening_balance > 0)",
    """
    UPDATE merchants m SET opening_balance = (
        SELECT amount FROM transfers t
        WHERE t.merchant_id = m.merchant_id AND t.reason = 'TOP_UP' AND t.description = 'opening balance' ORDER BY id LIMIT 1
    ) WHERE opening_balance IS NULL
    """,
    # ---- a snapshot: the values of the merchant's row, and all other rows as JSON, in chunks
    """
    CREATE TABLE IF NOT EXISTS snapshots (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        id uuid NOT NULL,
        name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
        rows integer NOT NULL CHECK (rows >= 0),
        size bigint NOT NULL CHECK (size >= 0),
        id_sequence bigint NOT NULL,
        clock_frozen_at timestamptz,
        clock_offset interval NOT NULL,
        default_scenario text NOT NULL,
        clock_at timestamptz NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (merchant_id, id)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS snapshot_rows (
        merchant_id uuid NOT NULL,
        snapshot_id uuid NOT NULL,
        table_name text COLLATE "C" NOT NULL,
        part integer NOT NULL,
        rows json NOT NULL,
        PRIMARY KEY (merchant_id, snapshot_id, table_name, part),
        FOREIGN KEY (merchant_id, snapshot_id) REFERENCES snapshots ON DELETE CASCADE
    )
    """,
    # The default compression takes longer than the rest of a snapshot. Not every server supports the faster one.
    """
    DO $$
    BEGIN
        ALTER TABLE snapshot_rows ALTER COLUMN rows SET COMPRESSION lz4;
    EXCEPTION WHEN feature_not_supported THEN
        NULL;
    END $$
    """,
    "GRANT SELECT, INSERT, UPDATE, DELETE ON snapshots, snapshot_rows TO psp_app",
)


async def forwards() -> MigrationManager:
    """Create the tables that do not exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
