"""The clock that signs an endpoint's webhooks, the sent headers of attempts, and deliveries that outlive their endpoint."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T02:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Signing time, attempts as sent, deliveries of deleted endpoints"

STATEMENTS = (
    # Nullable, because existing snapshots have no value for it; null means 'host'.
    """
    ALTER TABLE webhook_endpoints ADD COLUMN IF NOT EXISTS signing_time text
        CHECK (signing_time IN ('host', 'merchant'))
    """,
    # `signed_at` is the webhook-timestamp as sent, in Unix seconds; null in older rows and where nothing was sent.
    # The fault may have been deleted since, so its kind is stored with its id.
    """
    ALTER TABLE webhook_attempts
        ADD COLUMN IF NOT EXISTS signed_at bigint,
        ADD COLUMN IF NOT EXISTS fault_id uuid,
        ADD COLUMN IF NOT EXISTS fault_kind text
    """,
    # The deliveries of a deleted endpoint stay in the log.
    "ALTER TABLE webhook_deliveries DROP CONSTRAINT IF EXISTS webhook_deliveries_merchant_id_endpoint_id_fkey",
)


async def forwards() -> MigrationManager:
    """Change the tables, unless they are already changed."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def change() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(change)
    return manager
