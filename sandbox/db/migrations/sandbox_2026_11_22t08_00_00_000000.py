"""A world's id counter, clock and settings move from `merchants` to a table of their own, so that a snapshot is just tables.

Snapshots that are there stay restorable: each gets the row of `worlds` that its own columns described.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T08:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Worlds"

# The columns that move. A world's row is the merchant's lock, and is updated in every transaction that writes for the
# merchant: half of each page stays free, so that the update needs no index entry. `seed` is a copy of the merchant's, which
# never changes: the statement that takes the lock returns it, and a look-up in `merchants` would cost each transaction more.
STATEMENTS = (
    """
    CREATE TABLE IF NOT EXISTS worlds (
        merchant_id uuid PRIMARY KEY REFERENCES merchants ON DELETE CASCADE,
        seed bigint,
        id_sequence bigint NOT NULL DEFAULT 0,
        clock_frozen_at timestamptz,
        clock_offset interval NOT NULL DEFAULT '0',
        default_scenario text NOT NULL DEFAULT 'success' CHECK (default_scenario IN ('success', 'pending', 'failed')),
        approvals_expire_after interval CHECK (approvals_expire_after > '0'),
        review_threshold numeric(14, 2) DEFAULT 100000.00 CHECK (review_threshold > 0)
    ) WITH (fillfactor = 50)
    """,
    "GRANT SELECT, INSERT, UPDATE, DELETE ON worlds TO psp_app",
    # From here on a column of `worlds` can be added only without a default: snapshots hold its rows.
    "ALTER TABLE snapshot_rows ADD COLUMN IF NOT EXISTS worlds worlds[]",
    # All or nothing, and nothing where it has happened: the columns are gone then.
    """
    DO $$
    BEGIN
        IF EXISTS (
            SELECT FROM information_schema.columns
            WHERE table_schema = current_schema() AND table_name = 'merchants' AND column_name = 'id_sequence'
        ) THEN
            INSERT INTO worlds (merchant_id, seed, id_sequence, clock_frozen_at, clock_offset, default_scenario,
                approvals_expire_after, review_threshold)
            SELECT merchant_id, seed, id_sequence, clock_frozen_at, clock_offset, default_scenario, approvals_expire_after,
                review_threshold FROM merchants;
            INSERT INTO snapshot_rows (merchant_id, snapshot_id, table_name, part, worlds)
            SELECT s.merchant_id, s.id, 'worlds', 0, ARRAY[ROW (s.merchant_id, m.seed, s.id_sequence, s.clock_frozen_at,
                s.clock_offset, s.default_scenario, s.approvals_expire_after, s.review_threshold)::worlds]
            FROM snapshots s JOIN merchants m ON m.merchant_id = s.merchant_id;
            UPDATE snapshots SET rows = rows + 1;
            ALTER TABLE merchants DROP COLUMN id_sequence, DROP COLUMN clock_frozen_at, DROP COLUMN clock_offset,
                DROP COLUMN default_scenario, DROP COLUMN approvals_expire_after, DROP COLUMN review_threshold;
            ALTER TABLE snapshots DROP COLUMN id_sequence, DROP COLUMN clock_frozen_at, DROP COLUMN clock_offset,
                DROP COLUMN default_scenario, DROP COLUMN approvals_expire_after, DROP COLUMN review_threshold;
        END IF;
    END $$
    """,
    # It would lock the row of `merchants` as well, once for each payout. It could find nothing: a payout is written, and a
    # merchant deleted, under the lock of the world's row.
    "ALTER TABLE payouts DROP CONSTRAINT IF EXISTS payouts_merchant_id_fkey",
)


async def forwards() -> MigrationManager:
    """Move the columns, or find them moved."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def move() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(move)
    return manager
