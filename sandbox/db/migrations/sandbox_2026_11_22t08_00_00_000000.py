"""A world's id counter, clock and settings move from `merchants` to the new table `worlds`.

A snapshot then consists of rows of tables only. Existing snapshots can still be restored: each gets a row of `worlds` with the
values of its columns.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T08:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Worlds"

# A world's row is the merchant's lock, and every transaction that writes for the merchant updates it. Half of each page stays
# free, so that the update needs no new index entry. `seed` is a copy of the merchant's seed, which never changes: the statement
# that takes the lock returns it, so that no transaction has to read `merchants` too.
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
    # From now on, a column can be added to `worlds` only without a default, because snapshots contain its rows.
    "ALTER TABLE snapshot_rows ADD COLUMN IF NOT EXISTS worlds worlds[]",
    # All in one statement. If the columns no longer exist, they have already been moved.
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
    # The foreign key would also lock the row of `merchants`, once for each payout. It cannot find anything: payouts are
    # written, and merchants deleted, under the lock of the world's row.
    "ALTER TABLE payouts DROP CONSTRAINT IF EXISTS payouts_merchant_id_fkey",
)


async def forwards() -> MigrationManager:
    """Move the columns, unless they are already moved."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def move() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(move)
    return manager
