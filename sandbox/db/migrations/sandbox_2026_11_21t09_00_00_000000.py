"""Users with wallets, their transactions, sales and bulk credits. Raw SQL, because Piccolo does not support composite keys."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-21T09:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Users, sales and bulk credits"

STATEMENTS = (
    # ---- USER_FUNDS, the contra account of all wallets of a merchant
    """
    INSERT INTO accounts (merchant_id, account, balance, version, updated_at)
    SELECT merchant_id, 'USER_FUNDS', 0, 0, created_at FROM merchants
    ON CONFLICT (merchant_id, account) DO NOTHING
    """,
    # ---- users: each row has the wallet's totals, updated with every transaction, so that no read has to add them up
    """
    CREATE TABLE IF NOT EXISTS users (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        id uuid NOT NULL,
        name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
        external_id text COLLATE "C" CHECK (length(external_id) BETWEEN 1 AND 64),
        vendor_user_id text COLLATE "C" NOT NULL CHECK (length(vendor_user_id) BETWEEN 1 AND 64),
        dest_type text COLLATE "C" CHECK (dest_type IN ('BANK', 'WALLET')),
        bank_code text,
        wallet_code text,
        account_number text,
        earned numeric(20, 2) NOT NULL CHECK (earned >= 0),
        spent numeric(20, 2) NOT NULL CHECK (spent >= 0),
        credited numeric(20, 2) NOT NULL CHECK (credited >= 0),
        advances numeric(20, 2) NOT NULL CHECK (advances >= 0),
        finals numeric(20, 2) NOT NULL,
        requested numeric(20, 2) NOT NULL CHECK (requested >= 0),
        approved numeric(20, 2) NOT NULL CHECK (approved >= 0),
        paid numeric(20, 2) NOT NULL CHECK (paid >= 0),
        version bigint NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (merchant_id, id),
        UNIQUE (merchant_id, external_id),
        UNIQUE (merchant_id, vendor_user_id),
        CHECK ((dest_type IS NULL) = (account_number IS NULL)),
        CHECK ((dest_type IS NOT DISTINCT FROM 'BANK') = (bank_code IS NOT NULL)),
        CHECK ((dest_type IS NOT DISTINCT FROM 'WALLET') = (wallet_code IS NOT NULL))
    ) WITH (fillfactor = 50)
    """,
    "CREATE INDEX IF NOT EXISTS users_who_wait ON users (merchant_id, id) WHERE requested > 0",
    # The vendor feed, in the order of ids: what users earned and spent, and the payouts that they requested and were paid.
    """
    CREATE TABLE IF NOT EXISTS user_transactions (
        merchant_id uuid NOT NULL,
        id uuid NOT NULL,
        user_id uuid NOT NULL,
        type text COLLATE "C" NOT NULL CHECK (type IN ('EARNED', 'SPENT', 'PAYOUT', 'PAID_OUT')),
        amount numeric(20, 2) NOT NULL CHECK (amount > 0),
        reference text,
        transfer_id uuid,
        payout_id uuid,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (merchant_id, id),
        FOREIGN KEY (merchant_id, user_id) REFERENCES users,
        CHECK ((type IN ('EARNED', 'SPENT')) = (transfer_id IS NOT NULL)),
        CHECK ((type IN ('PAYOUT', 'PAID_OUT')) = (payout_id IS NOT NULL))
    )
    """,
    "CREATE INDEX IF NOT EXISTS user_transactions_by_user ON user_transactions (merchant_id, user_id, type, id)",
    # ---- sales: each has at most one advance and one final payment
    """
    CREATE TABLE IF NOT EXISTS sales (
        merchant_id uuid NOT NULL,
        id uuid NOT NULL,
        user_id uuid NOT NULL,
        brand text NOT NULL CHECK (length(brand) BETWEEN 1 AND 100),
        earning numeric(20, 2) NOT NULL CHECK (earning > 0),
        status text COLLATE "C" NOT NULL CHECK (status IN ('PENDING', 'APPROVED', 'DECLINED')),
        advance_amount numeric(20, 2) CHECK (advance_amount >= 0),
        final_amount numeric(20, 2),
        advance_due boolean NOT NULL,
        final_due boolean NOT NULL,
        created_at timestamptz NOT NULL,
        reconciled_at timestamptz,
        PRIMARY KEY (merchant_id, id),
        FOREIGN KEY (merchant_id, user_id) REFERENCES users,
        CHECK ((status = 'PENDING') = (reconciled_at IS NULL)),
        CHECK (NOT advance_due OR (status = 'PENDING' AND advance_amount IS NULL)),
        CHECK (NOT final_due OR (status <> 'PENDING' AND final_amount IS NULL))
    ) WITH (fillfactor = 80)
    """,
    "CREATE INDEX IF NOT EXISTS sales_by_status ON sales (merchant_id, status, id)",
    "CREATE INDEX IF NOT EXISTS sales_to_advance ON sales (merchant_id, id) WHERE advance_due",
    "CREATE INDEX IF NOT EXISTS sales_to_settle ON sales (merchant_id, id) WHERE final_due",
    """
    CREATE TABLE IF NOT EXISTS sale_payments (
        merchant_id uuid NOT NULL,
        sale_id uuid NOT NULL,
        kind text COLLATE "C" NOT NULL CHECK (kind IN ('ADVANCE', 'FINAL')),
        amount numeric(20, 2) NOT NULL,
        transfer_id uuid,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (merchant_id, sale_id, kind),
        FOREIGN KEY (merchant_id, sale_id) REFERENCES sales,
        CHECK ((amount = 0) = (transfer_id IS NULL))
    )
    """,
    # ---- bulk credits: uploaded files and their rows
    """
    CREATE TABLE IF NOT EXISTS bulk_credits (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        id uuid NOT NULL,
        status text COLLATE "C" NOT NULL
            CHECK (status IN ('UPLOADED', 'PROCESSING', 'COMPLETED', 'PARTIALLY_COMPLETED', 'FAILED')),
        total integer NOT NULL CHECK (total >= 0),
        invalid integer NOT NULL CHECK (invalid >= 0),
        duplicates integer NOT NULL CHECK (duplicates >= 0),
        succeeded integer NOT NULL CHECK (succeeded >= 0),
        failed integer NOT NULL CHECK (failed >= 0),
        request_id text NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        completed_at timestamptz,
        PRIMARY KEY (merchant_id, id),
        CHECK (invalid + duplicates + succeeded + failed <= total)
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE INDEX IF NOT EXISTS bulk_credits_to_do ON bulk_credits (merchant_id, id) WHERE status IN ('UPLOADED', 'PROCESSING')
    """,
    """
    CREATE TABLE IF NOT EXISTS bulk_credit_items (
        merchant_id uuid NOT NULL,
        activity_id uuid NOT NULL,
        line integer NOT NULL CHECK (line > 0),
        user_id text NOT NULL,
        amount text NOT NULL,
        status text COLLATE "C" NOT NULL CHECK (status IN ('PENDING', 'SUCCEEDED', 'FAILED', 'INVALID', 'DUPLICATE')),
        error text,
        transfer_id uuid,
        PRIMARY KEY (merchant_id, activity_id, line),
        FOREIGN KEY (merchant_id, activity_id) REFERENCES bulk_credits ON DELETE CASCADE,
        CHECK ((status = 'SUCCEEDED') = (transfer_id IS NOT NULL))
    ) WITH (fillfactor = 70)
    """,
    """
    CREATE INDEX IF NOT EXISTS bulk_credit_items_by_status ON bulk_credit_items (merchant_id, activity_id, status, line)
    """,
    # ---- the application's role
    "GRANT SELECT, INSERT, UPDATE, DELETE ON users, sales, bulk_credits, bulk_credit_items TO psp_app",
    "GRANT SELECT, INSERT ON user_transactions, sale_payments TO psp_app",
)


async def forwards() -> MigrationManager:
    """Create the tables that do not exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
