"""The tables that grow fastest lose their foreign keys, and the audit checks the references instead.

A foreign key looks up and locks the referenced row for each row that is inserted. Every statement that writes these tables has
just read or written the referenced row under the merchant's lock, so the look-up finds nothing new. A deletion names every
table itself: see `sandbox/merchants/tables.py`.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T09:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Fewer foreign keys"

STATEMENTS = (
    "ALTER TABLE transfers DROP CONSTRAINT IF EXISTS transfers_merchant_id_payout_id_fkey",
    "ALTER TABLE events DROP CONSTRAINT IF EXISTS events_merchant_id_payout_id_fkey",
    "ALTER TABLE webhook_deliveries DROP CONSTRAINT IF EXISTS webhook_deliveries_merchant_id_event_id_fkey",
    "ALTER TABLE webhook_attempts DROP CONSTRAINT IF EXISTS webhook_attempts_merchant_id_delivery_id_fkey",
    "ALTER TABLE user_transactions DROP CONSTRAINT IF EXISTS user_transactions_merchant_id_user_id_fkey",
    "ALTER TABLE bulk_credit_items DROP CONSTRAINT IF EXISTS bulk_credit_items_merchant_id_activity_id_fkey",
)


async def forwards() -> MigrationManager:
    """Drop the foreign keys that still exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def drop() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(drop)
    return manager
