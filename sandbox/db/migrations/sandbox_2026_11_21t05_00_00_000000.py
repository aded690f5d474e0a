"""The payout core. Raw SQL, because Piccolo does not support composite keys.

Every key begins with merchant_id, so that the database can be distributed by it. There are no triggers, and no defaults that
use the time or randomness.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from sandbox.db.engine import ENGINE

ID = "2026-11-21T05:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "The payout core"

STATEMENTS = (
    # ---- merchants: a row is the merchant's lock, clock and id counter
    """
    CREATE TABLE IF NOT EXISTS merchants (
        merchant_id uuid PRIMARY KEY,
        name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
        currency text NOT NULL DEFAULT 'PKR' CHECK (currency = 'PKR'),
        seed bigint,
        id_sequence bigint NOT NULL DEFAULT 0,
        clock_frozen_at timestamptz,
        clock_offset interval NOT NULL DEFAULT '0',
        default_scenario text NOT NULL DEFAULT 'success' CHECK (default_scenario IN ('success', 'pending', 'failed')),
        ipn_secret bytea NOT NULL,
        webhook_secret bytea NOT NULL,
        created_at timestamptz NOT NULL
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE IF NOT EXISTS api_keys (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        id uuid NOT NULL,
        key_hash bytea NOT NULL CHECK (length(key_hash) = 32),
        role text NOT NULL CHECK (role IN ('admin', 'member')),
        name text NOT NULL,
        created_at timestamptz NOT NULL,
        revoked_at timestamptz,
        PRIMARY KEY (merchant_id, id),
        UNIQUE (merchant_id, key_hash)
    )
    """,
    # The look-up of a key by its hash cannot use a merchant id, because it finds the merchant. Its result is cached.
    "CREATE INDEX IF NOT EXISTS api_keys_by_hash ON api_keys (key_hash)",
    # ---- money
    """
    CREATE TABLE IF NOT EXISTS accounts (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        account text COLLATE "C" NOT NULL,
        balance numeric(20, 2) NOT NULL,
        version bigint NOT NULL,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (merchant_id, account),
        CONSTRAINT never_negative CHECK (balance >= 0 OR account NOT IN ('AVAILABLE', 'LOCKED'))
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE IF NOT EXISTS payouts (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        id uuid NOT NULL,
        merchant_reference text COLLATE "C" NOT NULL CHECK (length(merchant_reference) BETWEEN 1 AND 64),
        amount numeric(20, 2) NOT NULL CHECK (amount > 0),
        currency text NOT NULL CHECK (currency = 'PKR'),
        dest_type text COLLATE "C" NOT NULL CHECK (dest_type IN ('BANK', 'WALLET')),
        bank_code text,
        wallet_code text,
        account_number text NOT NULL,
        account_title text,
        status text COLLATE "C" NOT NULL CHECK (status IN ('REQUESTED', 'PENDING', 'PROCESSING', 'RETRY', 'ON_HOLD',
            'IN_REVIEW', 'SUCCESS', 'FAILED', 'CANCELLED', 'REJECTED', 'RETURNED')),
        scenario text NOT NULL,
        failure_code text,
        failure_reason text,
        psp_reference text COLLATE "C",
        attempts integer NOT NULL CHECK (attempts >= 0),
        metadata jsonb NOT NULL,
        user_id uuid,
        step integer NOT NULL,
        due_at timestamptz,
        changes integer NOT NULL CHECK (changes > 0),
        request_id text NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        processed_at timestamptz,
        PRIMARY KEY (merchant_id, id),
        UNIQUE (merchant_id, merchant_reference),
        CHECK ((dest_type = 'BANK') = (bank_code IS NOT NULL)),
        CHECK ((dest_type = 'WALLET') = (wallet_code IS NOT NULL)),
        CHECK (status <> 'SUCCESS' OR psp_reference IS NOT NULL)
    ) WITH (fillfactor = 80)
    """,
    "CREATE INDEX IF NOT EXISTS payouts_due ON payouts (merchant_id, due_at, id) WHERE due_at IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS payouts_by_status ON payouts (merchant_id, status, dest_type, id)",
    "CREATE INDEX IF NOT EXISTS payouts_by_user ON payouts (merchant_id, user_id, id) WHERE user_id IS NOT NULL",
    # A bank's callback names a payout but no merchant; these two indexes find the merchant. They are hash indexes, so that the
    # planner cannot use them to read the payouts of all merchants in the order of ids for a list.
    "CREATE INDEX IF NOT EXISTS payouts_by_id ON payouts USING hash (id)",
    "CREATE INDEX IF NOT EXISTS payouts_by_psp_reference ON payouts USING hash (psp_reference) WHERE psp_reference IS NOT NULL",
    """
    CREATE TABLE IF NOT EXISTS transfers (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        id uuid NOT NULL,
        debit_account text COLLATE "C" NOT NULL,
        credit_account text COLLATE "C" NOT NULL,
        amount numeric(20, 2) NOT NULL CHECK (amount > 0),
        debit_balance_after numeric(20, 2) NOT NULL,
        credit_balance_after numeric(20, 2) NOT NULL,
        reason text COLLATE "C" NOT NULL,
        payout_id uuid,
        description text NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (merchant_id, id),
        FOREIGN KEY (merchant_id, payout_id) REFERENCES payouts,
        CHECK (debit_account <> credit_account)
    )
    """,
    "CREATE INDEX IF NOT EXISTS transfers_by_payout ON transfers (merchant_id, payout_id, id) WHERE payout_id IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS transfers_by_reason ON transfers (merchant_id, reason, id)",
    # ---- events: those of a payout are also its timeline, one row per change
    """
    CREATE TABLE IF NOT EXISTS events (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        id uuid NOT NULL,
        type text COLLATE "C" NOT NULL,
        body text NOT NULL,
        payout_id uuid,
        change integer,
        from_status text,
        to_status text,
        cause text NOT NULL CHECK (cause IN ('api', 'worker', 'ipn', 'simulation')),
        scenario text,
        step integer,
        transfer_id uuid,
        request_id text NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (merchant_id, id),
        UNIQUE (merchant_id, payout_id, change),
        FOREIGN KEY (merchant_id, payout_id) REFERENCES payouts,
        CHECK ((payout_id IS NULL) = (change IS NULL)),
        CHECK ((payout_id IS NULL) = (to_status IS NULL))
    )
    """,
    # ---- webhooks
    """
    CREATE TABLE IF NOT EXISTS webhook_endpoints (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        id uuid NOT NULL,
        url text NOT NULL,
        event_types text[] NOT NULL,
        signing text NOT NULL CHECK (signing IN ('v1', 'v1a')),
        retry_profile text NOT NULL CHECK (retry_profile IN ('standard', 'fast')),
        ordered boolean NOT NULL,
        rate_limit integer CHECK (rate_limit > 0),
        description text NOT NULL,
        secret bytea NOT NULL,
        status text NOT NULL CHECK (status IN ('ENABLED', 'DISABLED')),
        disabled_reason text,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (merchant_id, id)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS webhook_deliveries (
        merchant_id uuid NOT NULL,
        id uuid NOT NULL,
        event_id uuid NOT NULL,
        endpoint_id uuid NOT NULL,
        status text COLLATE "C" NOT NULL CHECK (status IN ('PENDING', 'SUCCEEDED', 'FAILED', 'PAUSED')),
        attempts integer NOT NULL CHECK (attempts >= 0),
        scheduled integer NOT NULL CHECK (scheduled >= 0),
        next_attempt_at timestamptz,
        leased_until timestamptz,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        PRIMARY KEY (merchant_id, id),
        FOREIGN KEY (merchant_id, event_id) REFERENCES events,
        FOREIGN KEY (merchant_id, endpoint_id) REFERENCES webhook_endpoints ON DELETE CASCADE
    ) WITH (fillfactor = 70)
    """,
    # The only index that finds due deliveries. It begins with the endpoint, because endpoints take turns.
    """
    CREATE INDEX IF NOT EXISTS webhook_deliveries_due
        ON webhook_deliveries (merchant_id, endpoint_id, next_attempt_at, id) WHERE next_attempt_at IS NOT NULL
    """,
    "CREATE INDEX IF NOT EXISTS webhook_deliveries_by_event ON webhook_deliveries (merchant_id, event_id)",
    "CREATE INDEX IF NOT EXISTS webhook_deliveries_by_endpoint ON webhook_deliveries (merchant_id, endpoint_id, status, id)",
    """
    CREATE TABLE IF NOT EXISTS webhook_attempts (
        merchant_id uuid NOT NULL,
        delivery_id uuid NOT NULL,
        attempt integer NOT NULL CHECK (attempt > 0),
        at timestamptz NOT NULL,
        url text NOT NULL,
        signature text NOT NULL,
        status integer,
        response_headers jsonb NOT NULL,
        response_body text NOT NULL,
        error text,
        duration_ms integer NOT NULL,
        PRIMARY KEY (merchant_id, delivery_id, attempt),
        FOREIGN KEY (merchant_id, delivery_id) REFERENCES webhook_deliveries ON DELETE CASCADE
    )
    """,
    # ---- idempotency keys
    """
    CREATE TABLE IF NOT EXISTS idempotency_keys (
        merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
        key text COLLATE "C" NOT NULL,
        fingerprint bytea NOT NULL,
        status integer NOT NULL,
        body bytea NOT NULL,
        location text,
        expires_at timestamptz NOT NULL,
        PRIMARY KEY (merchant_id, key)
    )
    """,
    "CREATE INDEX IF NOT EXISTS idempotency_keys_lapse ON idempotency_keys (merchant_id, expires_at)",
    # ---- the application's role: it can read and write all tables, but cannot change or delete transfers and events
    """
    DO $$
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'psp_app') THEN
            CREATE ROLE psp_app NOLOGIN;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL; -- another database of this server was migrated at the same moment
    END $$
    """,
    "GRANT psp_app TO CURRENT_USER",
    """
    GRANT SELECT, INSERT, UPDATE, DELETE ON merchants, api_keys, accounts, payouts, webhook_endpoints,
        webhook_deliveries, webhook_attempts, idempotency_keys TO psp_app
    """,
    "GRANT SELECT, INSERT ON transfers, events TO psp_app",
    # The readiness check reads whether the migrations have run.
    "GRANT SELECT ON migration TO psp_app",
)


async def forwards() -> MigrationManager:
    """Create the tables that do not exist."""
    manager = MigrationManager(migration_id=ID, app_name="sandbox", description=DESCRIPTION)

    async def create() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(create)
    return manager
