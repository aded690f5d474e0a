"""Attempts to pay for a sale, and indexes for a user's sales and a wallet's entries."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-22T06:30:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Attempts of sales, and histories of wallets"

STATEMENTS = (
    # Null means 0: PostgreSQL does not add a column with a default to a table whose rows are in snapshots.
    """
    ALTER TABLE sales ADD COLUMN IF NOT EXISTS attempts integer CHECK (attempts >= 0),
        ADD COLUMN IF NOT EXISTS last_error text
    """,
    # By the wallet's owner: one account of the transfer is USER_FUNDS, and the other is the wallet, whose name ends in the
    # user's id.
    """
    CREATE INDEX IF NOT EXISTS transfers_of_wallets ON transfers (merchant_id,
            (right(CASE WHEN debit_account = 'USER_FUNDS' THEN credit_account ELSE debit_account END, 36)::uuid), reason, id)
        WHERE reason IN ('WALLET_EARN', 'WALLET_SPEND', 'WALLET_CREDIT', 'WALLET_ADVANCE', 'WALLET_FINAL', 'WALLET_CLAWBACK',
            'WALLET_PAYOUT', 'WALLET_GIVE_BACK')
    """,
    "CREATE INDEX IF NOT EXISTS sales_by_user ON sales (merchant_id, user_id, status, id)",
)


async def forwards() -> MigrationManager:
    """Add the columns and the indexes that do not exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def change() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(change)
    return manager
