"""When each sale is due to be paid, in its merchant's time."""

from typing import Final

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-24T02:45:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Due times of sales"

# The first :00 (advance) or :30 (final payment) after the sale was recorded or reconciled. Only immutable functions: a
# distributed database refuses others in an UPDATE.
_DUE: Final = """
CASE WHEN advance_due THEN
    to_timestamp(((floor(extract(epoch FROM created_at - timestamptz '1970-01-01Z') / 3600) + 1) * 3600)::float8)
WHEN final_due THEN
    to_timestamp(((floor((extract(epoch FROM reconciled_at - timestamptz '1970-01-01Z') + 1800) / 3600) + 0.5) * 3600)::float8)
END
"""

STATEMENTS = (
    "ALTER TABLE sales ADD COLUMN IF NOT EXISTS due_at timestamptz",
    f"UPDATE sales SET due_at = {_DUE} WHERE due_at IS NULL AND (advance_due OR final_due)",  # noqa: S608 -- constants
    # Snapshots contain whole rows, in arrays.
    f"""
    UPDATE snapshot_rows SET sales = ARRAY(
        SELECT ROW (merchant_id, id, user_id, brand, earning, status, advance_amount, final_amount, advance_due, final_due,
            created_at, reconciled_at, attempts, last_error, coalesce(due_at, {_DUE}))::sales
        FROM unnest(snapshot_rows.sales) s
    ) WHERE table_name = 'sales'
    """,  # noqa: S608 -- constants
    "ALTER TABLE sales DROP CONSTRAINT IF EXISTS sales_due_at_check",
    "ALTER TABLE sales ADD CONSTRAINT sales_due_at_check CHECK ((due_at IS NOT NULL) = (advance_due OR final_due))",
    "CREATE INDEX IF NOT EXISTS sales_due ON sales (merchant_id, due_at, id) WHERE due_at IS NOT NULL",
)


async def forwards() -> MigrationManager:
    """Add the column and set it, unless that was done."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def change() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(change)
    return manager
