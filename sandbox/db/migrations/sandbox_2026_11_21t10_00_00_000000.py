"""Rate limits, and data aggregated from vendors' feeds. Raw SQL, because Piccolo does not support composite keys."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-21T10:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Rate limits and the aggregator"

STATEMENTS = (
    # Maximum number of a merchant's API requests per minute; null for no limit.
    "ALTER TABLE merchants ADD COLUMN IF NOT EXISTS rate_limit integer CHECK (rate_limit BETWEEN 1 AND 100000)",
    # ---- the URL of a merchant's feed and the position in it; the row is the lock of the merchant's aggregated data
    """
    CREATE TABLE IF NOT EXISTS vendor_cursors (
        merchant_id uuid PRIMARY KEY REFERENCES merchants ON DELETE CASCADE,
        url text CHECK (length(url) BETWEEN 1 AND 2000),
        headers bytea,
        since timestamptz,
        page integer NOT NULL CHECK (page > 0),
        seen timestamptz,
        walk_began timestamptz,
        last_id uuid,
        failures integer NOT NULL CHECK (failures >= 0),
        next_poll_at timestamptz NOT NULL,
        fetch_id uuid,
        updated_at timestamptz NOT NULL,
        CHECK (url IS NOT NULL OR headers IS NULL)
    ) WITH (fillfactor = 50)
    """,
    # It finds the merchants whose poll is due, so it does not begin with merchant_id. It is not a key, so this is allowed.
    "CREATE INDEX IF NOT EXISTS vendor_cursors_due ON vendor_cursors (next_poll_at) WHERE url IS NOT NULL",
    # ---- every call to a vendor. The rate limit counts these rows: a call counts from its start, even if its end is unknown
    """
    CREATE TABLE IF NOT EXISTS vendor_fetches (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        id uuid NOT NULL,
        url text NOT NULL,
        page integer NOT NULL,
        at timestamptz NOT NULL,
        ended_by timestamptz NOT NULL,
        outcome text COLLATE "C" NOT NULL CHECK (outcome IN ('RUNNING', 'SUCCEEDED', 'FAILED')),
        status integer,
        rows integer,
        new_rows integer,
        dead_letters integer,
        duration_ms integer,
        error text,
        PRIMARY KEY (merchant_id, id)
    ) WITH (fillfactor = 70)
    """,
    # ---- the rows that were read, each once by the vendor's id, and their sums per user
    """
    CREATE TABLE IF NOT EXISTS vendor_transactions (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        vendor_id text COLLATE "C" NOT NULL CHECK (length(vendor_id) BETWEEN 1 AND 200),
        user_id text COLLATE "C" NOT NULL CHECK (length(user_id) BETWEEN 1 AND 64),
        type text COLLATE "C" NOT NULL CHECK (type IN ('earned', 'spent', 'payout', 'paid_out')),
        amount numeric(20, 2) NOT NULL CHECK (amount > 0),
        created_at timestamptz NOT NULL,
        PRIMARY KEY (merchant_id, vendor_id)
    )
    """,
    # A sum of many amounts, so the column is wider than that of one amount.
    """
    CREATE TABLE IF NOT EXISTS vendor_balances (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        user_id text COLLATE "C" NOT NULL CHECK (length(user_id) BETWEEN 1 AND 64),
        id uuid NOT NULL,
        earned numeric(30, 2) NOT NULL CHECK (earned >= 0),
        spent numeric(30, 2) NOT NULL CHECK (spent >= 0),
        payout numeric(30, 2) NOT NULL CHECK (payout >= 0),
        paid_out numeric(30, 2) NOT NULL CHECK (paid_out >= 0),
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (merchant_id, user_id)
    ) WITH (fillfactor = 50)
    """,
    "CREATE INDEX IF NOT EXISTS vendor_balances_who_wait ON vendor_balances (merchant_id, id) WHERE payout > paid_out",
    # ---- rows that could not be parsed, as they were received
    """
    CREATE TABLE IF NOT EXISTS vendor_dead_letters (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        id uuid NOT NULL,
        digest bytea NOT NULL CHECK (length(digest) = 32),
        raw text NOT NULL,
        reason text NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (merchant_id, id),
        UNIQUE (merchant_id, digest)
    )
    """,
    # ---- the application's role
    "GRANT SELECT, INSERT, UPDATE, DELETE ON vendor_cursors, vendor_fetches, vendor_balances, vendor_dead_letters, "
    "vendor_transactions TO psp_app",
)


async def forwards() -> MigrationManager:
    """Create the tables that do not exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
