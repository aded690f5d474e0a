"""Fewer indexes for a bulk credit to keep up: half of PostgreSQL's work for a row was in them."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-21T17:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Fewer indexes for bulk credits"

STATEMENTS = (
    # One index for both: a row is found by its status and line, and all rows are five ranges, each in the order of the file.
    # A line is in one file once, as the lines are counted while the file is copied.
    """
    ALTER TABLE bulk_credit_items DROP CONSTRAINT IF EXISTS bulk_credit_items_pkey,
        ADD CONSTRAINT bulk_credit_items_pkey PRIMARY KEY (merchant_id, activity_id, status, line)
    """,
    "DROP INDEX IF EXISTS bulk_credit_items_by_status",
    # What moves a merchant's own balance is listed by its kind; what moves its users' wallets is not.
    """
    CREATE INDEX IF NOT EXISTS transfers_of_balance ON transfers (merchant_id, reason, id)
        WHERE reason IN ('TOP_UP', 'PAYOUT_LOCK', 'PAYOUT_SETTLE', 'PAYOUT_RELEASE', 'PAYOUT_RETURN')
    """,
    "DROP INDEX IF EXISTS transfers_by_reason",
)


async def forwards() -> MigrationManager:
    """Make the indexes anew, each where it is not there yet."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
