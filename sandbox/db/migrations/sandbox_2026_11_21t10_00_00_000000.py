"""Rate limits, and what is aggregated from vendors' feeds. Raw SQL, since Piccolo knows no composite keys."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-21T10:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "Rate limits and the aggregator"

STATEMENTS = (
    # Requests a minute that a merchant's API takes; null for as many as come.
    "ALTER TABLE merchants ADD COLUMN IF NOT EXISTS rate_limit integer CHECK (rate_limit BETWEEN 1 AND 100000)",
    # ---- where a merchant's feed is, and where reading it stands; its row is the lock of all that is aggregated
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
    # Not a key, so it need not begin with the merchant: it finds those whose poll is due.
    "CREATE INDEX IF NOT EXISTS vendor_cursors_due ON vendor_cursors (next_poll_at) WHERE url IS NOT NULL",
    # ---- every call to a vendor, whose count is the limit's truth: a call counts until it is known to have ended
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
    # ---- what was read, each row once by the vendor's own id, and what it comes to
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
    # Sums of many amounts of the largest kind: wider than one amount is.
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
    # ---- rows that could not be understood, kept as they came
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
    """Create the tables, or find them there."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
