"""Index payouts by their metadata pairs: a page of payouts with a pair is a range of the index, in the order of ids."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T05:10:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Payouts by metadata"

# A pair is 16 bytes of its SHA-256, as in `sandbox.domain.payout.metadata_pair_id`.
_PAIR = "encode(substring(sha256(convert_to(m.key || chr(31) || m.value, 'UTF8')) FROM 1 FOR 16), 'hex')::uuid"

STATEMENTS = (
    """
    CREATE TABLE IF NOT EXISTS payout_metadata (
        merchant_id uuid NOT NULL,
        pair uuid NOT NULL,
        payout_id uuid NOT NULL,
        PRIMARY KEY (merchant_id, pair, payout_id)
    )
    """,
    f"""
    INSERT INTO payout_metadata (merchant_id, pair, payout_id)
    SELECT p.merchant_id, {_PAIR}, p.id FROM payouts p CROSS JOIN LATERAL jsonb_each_text(p.metadata) m
    ON CONFLICT DO NOTHING
    """,  # noqa: S608 -- constants
    "GRANT SELECT, INSERT, UPDATE, DELETE ON payout_metadata TO psp_app",
    "ALTER TABLE snapshot_rows ADD COLUMN IF NOT EXISTS payout_metadata payout_metadata[]",
    # Add the pairs to existing snapshots too, so that a restore brings them back.
    f"""
    INSERT INTO snapshot_rows (merchant_id, snapshot_id, table_name, part, payout_metadata)
    SELECT s.merchant_id, s.snapshot_id, 'payout_metadata', s.part,
        array_agg(ROW (s.merchant_id, {_PAIR}, p.id)::payout_metadata)
    FROM snapshot_rows s CROSS JOIN LATERAL unnest(s.payouts) p CROSS JOIN LATERAL jsonb_each_text(p.metadata) m
    WHERE s.table_name = 'payouts' GROUP BY s.merchant_id, s.snapshot_id, s.part
    ON CONFLICT DO NOTHING
    """,  # noqa: S608 -- constants
)


async def forwards() -> MigrationManager:
    """Create the table if it does not exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
