"""Each row of a bulk credit is a credit, also if it equals an earlier row. Such a row names that row and is credited as well.

Earlier versions did not credit such rows, and gave them a status of their own. They become INVALID rows, with the reason: their
money never moved. Snapshots with such rows are changed in the same way, because they could not be restored otherwise.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-24T02:40:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Equal rows of a bulk credit"


STATEMENTS = (
    "ALTER TABLE bulk_credit_items ADD COLUMN IF NOT EXISTS same_as_line integer",
    # Each count of invalid rows did not include the rows that equal an earlier one.
    "ALTER TABLE bulk_credits DROP CONSTRAINT IF EXISTS bulk_credits_check",
    """
    UPDATE bulk_credits b SET invalid = i.invalid
    FROM (
        SELECT merchant_id, activity_id, count(*) FILTER (WHERE status IN ('INVALID', 'DUPLICATE')) AS invalid
        FROM bulk_credit_items GROUP BY merchant_id, activity_id HAVING bool_or(status = 'DUPLICATE')
    ) i WHERE i.merchant_id = b.merchant_id AND i.activity_id = b.id
    """,
    """
    UPDATE snapshot_rows s SET bulk_credits = c.changed
    FROM (
        SELECT r.merchant_id, r.snapshot_id, r.part,
            array_agg(jsonb_populate_record(b, jsonb_build_object('invalid', b.invalid + b.duplicates))) AS changed
        FROM snapshot_rows r CROSS JOIN LATERAL unnest(r.bulk_credits) b
        GROUP BY r.merchant_id, r.snapshot_id, r.part
    ) c, (
        SELECT DISTINCT r.merchant_id, r.snapshot_id
        FROM snapshot_rows r CROSS JOIN LATERAL unnest(r.bulk_credit_items) i WHERE i.status = 'DUPLICATE'
    ) o
    WHERE s.table_name = 'bulk_credits' AND c.merchant_id = s.merchant_id AND c.snapshot_id = s.snapshot_id
        AND c.part = s.part AND o.merchant_id = s.merchant_id AND o.snapshot_id = s.snapshot_id
    """,
    "ALTER TABLE bulk_credits ADD CONSTRAINT bulk_credits_check"
    " CHECK (invalid + succeeded + failed <= total AND duplicates <= total)",
    # Their error was "is the same as line N".
    """
    UPDATE bulk_credit_items SET status = 'INVALID', error = error || ', and was not credited',
        same_as_line = substring(error FROM '[0-9]+')::integer
    WHERE status = 'DUPLICATE'
    """,
    """
    UPDATE snapshot_rows s SET bulk_credit_items = c.changed
    FROM (
        SELECT r.merchant_id, r.snapshot_id, r.part,
            array_agg(jsonb_populate_record(i, CASE WHEN i.status = 'DUPLICATE' THEN jsonb_build_object(
                'status', 'INVALID', 'error', i.error || ', and was not credited',
                'same_as_line', substring(i.error FROM '[0-9]+')::integer
            ) ELSE '{}' END)) AS changed
        FROM snapshot_rows r CROSS JOIN LATERAL unnest(r.bulk_credit_items) i
        GROUP BY r.merchant_id, r.snapshot_id, r.part HAVING bool_or(i.status = 'DUPLICATE')
    ) c
    WHERE s.table_name = 'bulk_credit_items' AND c.merchant_id = s.merchant_id AND c.snapshot_id = s.snapshot_id
        AND c.part = s.part
    """,
    "ALTER TABLE bulk_credit_items DROP CONSTRAINT IF EXISTS bulk_credit_items_status_check",
    "ALTER TABLE bulk_credit_items ADD CONSTRAINT bulk_credit_items_status_check"
    " CHECK (status IN ('PENDING', 'SUCCEEDED', 'FAILED', 'INVALID'))",
    "ALTER TABLE bulk_credit_items DROP CONSTRAINT IF EXISTS bulk_credit_items_same_as_line_check",
    "ALTER TABLE bulk_credit_items ADD CONSTRAINT bulk_credit_items_same_as_line_check"
    " CHECK (same_as_line > 0 AND same_as_line < line)",
    """
    CREATE INDEX IF NOT EXISTS bulk_credit_items_equal ON bulk_credit_items (merchant_id, activity_id, status, line)
        WHERE same_as_line IS NOT NULL
    """,
)


async def forwards() -> MigrationManager:
    """Change the tables and their rows, unless that was done."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def change() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(change)
    return manager
