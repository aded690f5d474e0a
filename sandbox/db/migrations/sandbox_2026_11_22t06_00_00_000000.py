"""Reversing rows in the vendor feed, for payouts that ended unpaid."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T06:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Reversals in the feed, attempts of sales, histories of wallets"

STATEMENTS = (
    # ---- reversals: only rows for requested and paid payouts can be reversed, earnings and spending cannot
    """
    ALTER TABLE user_transactions DROP CONSTRAINT IF EXISTS user_transactions_amount_check,
        ADD CONSTRAINT user_transactions_amount_check CHECK (amount > 0 OR (amount < 0 AND type IN ('PAYOUT', 'PAID_OUT')))
    """,
    """
    ALTER TABLE vendor_transactions DROP CONSTRAINT IF EXISTS vendor_transactions_amount_check,
        ADD CONSTRAINT vendor_transactions_amount_check CHECK (amount > 0 OR (amount < 0 AND type IN ('payout', 'paid_out')))
    """,
    # A vendor may send a reversal before the row that it reverses, so a sum can be negative for a while.
    """
    ALTER TABLE vendor_balances DROP CONSTRAINT IF EXISTS vendor_balances_payout_check,
        DROP CONSTRAINT IF EXISTS vendor_balances_paid_out_check
    """,
    # Add the rows that earlier releases did not write for payouts that ended unpaid. Each id is a UUIDv7 with the merchant's
    # time and the next numbers of its counter, as in `sandbox.domain.ids`, so that the rows are last in the feed and readers
    # see them.
    """
    WITH wanted AS (
        SELECT p.merchant_id, p.id AS payout_id, p.user_id, p.merchant_reference, k.type, k.amount
        FROM payouts p CROSS JOIN LATERAL (VALUES
            ('PAYOUT', CASE WHEN p.status IN ('FAILED', 'CANCELLED', 'REJECTED', 'RETURNED') THEN 0 ELSE p.amount END),
            ('PAID_OUT', CASE WHEN p.status = 'SUCCESS' THEN p.amount ELSE 0 END)) k (type, amount)
        WHERE p.user_id IS NOT NULL
    ), written AS (
        SELECT merchant_id, payout_id, type, sum(amount) AS amount FROM user_transactions WHERE payout_id IS NOT NULL
        GROUP BY merchant_id, payout_id, type
    ), missing AS (
        SELECT w.merchant_id, w.payout_id, w.user_id, w.merchant_reference, w.type, w.amount - coalesce(t.amount, 0) AS amount,
            row_number() OVER (PARTITION BY w.merchant_id ORDER BY w.payout_id, w.type DESC) AS number
        FROM wanted w LEFT JOIN written t
            ON t.merchant_id = w.merchant_id AND t.payout_id = w.payout_id AND t.type = w.type
        WHERE w.amount <> coalesce(t.amount, 0)
    ), numbered AS (
        UPDATE merchants m SET id_sequence = m.id_sequence + n.count
        FROM (SELECT merchant_id, count(*) AS count FROM missing GROUP BY merchant_id) n WHERE m.merchant_id = n.merchant_id
        RETURNING m.merchant_id, m.id_sequence - n.count AS first,
            coalesce(m.clock_frozen_at, date_trunc('milliseconds', now() + m.clock_offset)) AS at
    ), made AS (
        SELECT s.*, n.at, (n.first + s.number - 1) & x'ffffffff'::bigint AS counter
        FROM missing s JOIN numbered n ON n.merchant_id = s.merchant_id
    )
    INSERT INTO user_transactions (merchant_id, id, user_id, type, amount, reference, payout_id, created_at)
    SELECT merchant_id, (
        lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(counter >> 20), 3, '0')
        || to_hex(x'8000000000000000'::bigint | ((counter & x'fffff'::bigint) << 42) | floor(random() * 2 ^ 42)::bigint)
    )::uuid, user_id, type, amount, merchant_reference, payout_id, at FROM made
    """,
)


async def forwards() -> MigrationManager:
    """Change the tables, unless they are already changed."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def change() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(change)
    return manager
