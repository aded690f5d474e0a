"""Fewer indexes that a bulk credit has to update: they were half of PostgreSQL's work for a row."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-21T17:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Fewer indexes for bulk credits"

STATEMENTS = (
    # One index for two purposes: it finds a row by status and line, and lists all rows as five ranges, each in file order.
    # Lines are unique within a file, because they are counted while the file is copied.
    """
    ALTER TABLE bulk_credit_items DROP CONSTRAINT IF EXISTS bulk_credit_items_pkey,
        ADD CONSTRAINT bulk_credit_items_pkey PRIMARY KEY (merchant_id, activity_id, status, line)
    """,
    "DROP INDEX IF EXISTS bulk_credit_items_by_status",
    # Only transfers of the merchant's own balance are listed by reason; those of its users' wallets are not.
    """
    CREATE INDEX IF NOT EXISTS transfers_of_balance ON transfers (merchant_id, reason, id)
        WHERE reason IN ('TOP_UP', 'PAYOUT_LOCK', 'PAYOUT_SETTLE', 'PAYOUT_RELEASE', 'PAYOUT_RETURN')
    """,
    "DROP INDEX IF EXISTS transfers_by_reason",
)


async def forwards() -> MigrationManager:
    """Replace the indexes that have not been replaced yet."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
