"""Endpoints get filters, more signatures, limits and a history; attempts get timings; payouts and events get a trace.

No column has a default: snapshots contain rows of these tables, so a column can be added only without one.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T20:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Webhook options"

STATEMENTS = (
    """
    ALTER TABLE webhook_endpoints
        ADD COLUMN IF NOT EXISTS filters jsonb,
        ADD COLUMN IF NOT EXISTS custom_signing jsonb,
        ADD COLUMN IF NOT EXISTS max_in_flight integer CHECK (max_in_flight > 0),
        ADD COLUMN IF NOT EXISTS previous_secrets jsonb,
        ADD COLUMN IF NOT EXISTS rate_free_at timestamptz,
        ADD COLUMN IF NOT EXISTS failing_since timestamptz,
        ADD COLUMN IF NOT EXISTS status_history jsonb,
        ADD COLUMN IF NOT EXISTS relayed boolean,
        DROP CONSTRAINT IF EXISTS webhook_endpoints_signing_check
    """,
    """
    ALTER TABLE webhook_endpoints ADD CONSTRAINT webhook_endpoints_signing_check
        CHECK (signing IN ('v1', 'v1a', 'stripe', 'github', 'custom'))
    """,
    "ALTER TABLE webhook_deliveries ADD COLUMN IF NOT EXISTS resent boolean",
    """
    ALTER TABLE webhook_attempts
        ADD COLUMN IF NOT EXISTS manual boolean,
        ADD COLUMN IF NOT EXISTS request_headers jsonb,
        ADD COLUMN IF NOT EXISTS error_class text,
        ADD COLUMN IF NOT EXISTS dns_ms real,
        ADD COLUMN IF NOT EXISTS connect_ms real,
        ADD COLUMN IF NOT EXISTS tls_ms real,
        ADD COLUMN IF NOT EXISTS first_byte_ms real
    """,
    "ALTER TABLE payouts ADD COLUMN IF NOT EXISTS traceparent text",
    "ALTER TABLE events ADD COLUMN IF NOT EXISTS traceparent text",
)


async def forwards() -> MigrationManager:
    """Add the columns that do not exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def add() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(add)
    return manager
