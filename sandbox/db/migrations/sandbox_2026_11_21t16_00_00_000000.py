"""The tables that grow with every payout and credit lose their foreign keys to `merchants`.

Each of these checks cost as much as another index: a tenth to a fifth of PostgreSQL's work for a payout. They could not find
anything: a transaction that writes these rows holds the lock of the merchant's row, and a merchant is deleted, with the rows of
all its tables, under the same lock.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-21T16:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Fewer foreign keys to merchants"

STATEMENTS = (
    "ALTER TABLE transfers DROP CONSTRAINT IF EXISTS transfers_merchant_id_fkey",
    "ALTER TABLE events DROP CONSTRAINT IF EXISTS events_merchant_id_fkey",
    "ALTER TABLE idempotency_keys DROP CONSTRAINT IF EXISTS idempotency_keys_merchant_id_fkey",
)


async def forwards() -> MigrationManager:
    """Drop the constraints that exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def drop() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(drop)
    return manager
