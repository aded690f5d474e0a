"""Snapshots keep rows as the tables have them instead of as JSON, which took longer to write and to read than all the rest."""

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

# A column a table of the world, of which each row fills one. PostgreSQL refuses to change the type of a column of such a table
# while rows of it are put away: a migration that does so deletes the snapshots, drops the column here, and adds it again.
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
    # The usual compression takes longer than all the rest of a snapshot; not every server was built with the quick one.
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
    """Make the table anew; snapshots that there are go, as nothing reads them any more."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
