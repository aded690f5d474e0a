"""What became of the attempts to pay for a sale, the sales of a user, and the entries of a wallet."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T06:30:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Attempts of sales, and histories of wallets"

STATEMENTS = (
    # Null is none: PostgreSQL adds no column with a default to a table whose rows snapshots hold.
    """
    ALTER TABLE sales ADD COLUMN IF NOT EXISTS attempts integer CHECK (attempts >= 0),
        ADD COLUMN IF NOT EXISTS last_error text
    """,
    # Whose wallet it is: against all wallets together stands USER_FUNDS, and a wallet's account ends in its user's id.
    """
    CREATE INDEX IF NOT EXISTS transfers_of_wallets ON transfers (merchant_id,
            (right(CASE WHEN debit_account = 'USER_FUNDS' THEN credit_account ELSE debit_account END, 36)::uuid), reason, id)
        WHERE reason IN ('WALLET_EARN', 'WALLET_SPEND', 'WALLET_CREDIT', 'WALLET_ADVANCE', 'WALLET_FINAL', 'WALLET_CLAWBACK',
            'WALLET_PAYOUT', 'WALLET_GIVE_BACK')
    """,
    "CREATE INDEX IF NOT EXISTS sales_by_user ON sales (merchant_id, user_id, status, id)",
)


async def forwards() -> MigrationManager:
    """Add the columns and the index, or find them there."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def change() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(change)
    return manager
