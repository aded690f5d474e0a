"""Foreign keys are looked up in primary keys only.

PostgreSQL checks a foreign key with an equality of both columns, planned like any statement. If it expects a merchant to have
one row, every index that begins with merchant_id seems as good as the primary key, and it may read all of a merchant's rows for
each row that is written. It uses a partial index only if the statement implies the index's condition. So these indexes become
partial: a comparison of a column implies that it is not null, and lists that compare row values add `status <> ''`.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T07:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Foreign keys are looked up in primary keys"

STATEMENTS = (
    "CREATE UNIQUE INDEX IF NOT EXISTS events_of_payout ON events (merchant_id, payout_id, change) WHERE payout_id IS NOT NULL",
    "ALTER TABLE events DROP CONSTRAINT IF EXISTS events_merchant_id_payout_id_change_key",
    """
    CREATE UNIQUE INDEX IF NOT EXISTS payouts_by_reference ON payouts (merchant_id, merchant_reference)
        WHERE merchant_reference IS NOT NULL
    """,
    "ALTER TABLE payouts DROP CONSTRAINT IF EXISTS payouts_merchant_id_merchant_reference_key",
    """
    CREATE INDEX IF NOT EXISTS payouts_of_status ON payouts (merchant_id, status, dest_type, id) WHERE status <> ''
    """,
    "DROP INDEX IF EXISTS payouts_by_status",
    "CREATE UNIQUE INDEX IF NOT EXISTS users_by_external_id ON users (merchant_id, external_id) WHERE external_id IS NOT NULL",
    "ALTER TABLE users DROP CONSTRAINT IF EXISTS users_merchant_id_external_id_key",
    """
    CREATE UNIQUE INDEX IF NOT EXISTS users_by_vendor_user_id ON users (merchant_id, vendor_user_id)
        WHERE vendor_user_id IS NOT NULL
    """,
    "ALTER TABLE users DROP CONSTRAINT IF EXISTS users_merchant_id_vendor_user_id_key",
    """
    CREATE INDEX IF NOT EXISTS webhook_deliveries_of_event ON webhook_deliveries (merchant_id, event_id)
        WHERE event_id IS NOT NULL
    """,
    "DROP INDEX IF EXISTS webhook_deliveries_by_event",
    """
    CREATE INDEX IF NOT EXISTS webhook_deliveries_of_endpoint ON webhook_deliveries (merchant_id, endpoint_id, status, id)
        WHERE status <> ''
    """,
    "DROP INDEX IF EXISTS webhook_deliveries_by_endpoint",
    "CREATE INDEX IF NOT EXISTS sales_of_status ON sales (merchant_id, status, id) WHERE status <> ''",
    "DROP INDEX IF EXISTS sales_by_status",
    "CREATE INDEX IF NOT EXISTS sales_of_user ON sales (merchant_id, user_id, status, id) WHERE status <> ''",
    "DROP INDEX IF EXISTS sales_by_user",
)


async def forwards() -> MigrationManager:
    """Replace the indexes that have not been replaced yet."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
