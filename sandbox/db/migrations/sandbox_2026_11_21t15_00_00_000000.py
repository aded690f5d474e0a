"""Snapshots store rows in the types of their tables instead of as JSON, which took longer than the rest of a snapshot."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-21T15:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Snapshots without JSON"

_TABLES = (
    "vendor_cursors", "vendor_transactions", "vendor_balances", "vendor_dead_letters", "bulk_credit_items", "bulk_credits",
    "sale_payments", "sales", "user_transactions", "users", "webhook_attempts", "webhook_deliveries", "webhook_endpoints",
    "events", "transfers", "scenario_rules", "faults", "payouts", "idempotency_keys", "accounts",
)  # fmt: skip

# One column per table of the world; each row sets one of them. While snapshots have rows of a table, PostgreSQL refuses to
# change the type of that table's columns. A migration that does so must delete the snapshots, drop the column here, and add it
# again.
STATEMENTS = (
    "DROP TABLE IF EXISTS snapshot_rows",
    "DELETE FROM snapshots",
    f"""
    CREATE TABLE snapshot_rows (
        merchant_id uuid NOT NULL,
        snapshot_id uuid NOT NULL,
        table_name text COLLATE "C" NOT NULL,
        part integer NOT NULL,
        {" ".join(f"{table} {table}[]," for table in _TABLES)}
        PRIMARY KEY (merchant_id, snapshot_id, table_name, part),
        FOREIGN KEY (merchant_id, snapshot_id) REFERENCES snapshots ON DELETE CASCADE
    )
    """,
    # The default compression takes longer than the rest of a snapshot. Not every server supports the faster one.
    f"""
    DO $$
    BEGIN
        ALTER TABLE snapshot_rows {", ".join(f"ALTER COLUMN {table} SET COMPRESSION lz4" for table in _TABLES)};
    EXCEPTION WHEN feature_not_supported THEN
        NULL;
    END $$
    """,
    "GRANT SELECT, INSERT, UPDATE, DELETE ON snapshot_rows TO psp_app",
)


async def forwards() -> MigrationManager:
    """Recreate the table. Existing snapshots are deleted, because nothing can read them any more."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
