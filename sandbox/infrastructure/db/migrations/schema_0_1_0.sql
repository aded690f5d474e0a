-- The tables of version 0.1.0.
--
-- Every key begins with merchant_id, so that the database can be distributed by it. There are no triggers, and no defaults that
-- use the time or randomness.
--
-- PostgreSQL checks a foreign key with an equality of both columns, and plans that like any statement. If it expects a merchant
-- to have one row, every index that begins with merchant_id seems as good as the primary key, and it may read all of a
-- merchant's rows for each row that is written. It uses a partial index only if the statement implies the index's condition. So
-- the other indexes of referenced tables are partial: a comparison of a column implies that it is not null, and lists that
-- compare row values add `status <> ''`.
--
-- The tables that grow with every payout, event and credit have no foreign keys. Each check would look up and lock a row that
-- the transaction has just read or written under the merchant's lock. The audit checks these references instead, and a deletion
-- names every table (sandbox/worlds/merchants/tables.py).

-- ---- Merchants and their keys

CREATE TABLE IF NOT EXISTS merchants (
    merchant_id uuid PRIMARY KEY,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    currency text NOT NULL DEFAULT 'PKR' CHECK (currency = 'PKR'),
    seed bigint,
    ipn_secret bytea NOT NULL,
    webhook_secret bytea NOT NULL,
    created_at timestamptz NOT NULL,
    rate_limit integer CHECK (rate_limit BETWEEN 1 AND 100000), -- API requests per minute; null: no limit
    -- The lease of the clock, in the host's time. Its holder renews it; if the holder dies, it expires within seconds.
    clock_held_by uuid,
    clock_held_until timestamptz,
    -- What a reset restores. `begins_at` is the time at which the clock of a new or reset world is frozen; null: it runs.
    opening_balance numeric(20, 2) CHECK (opening_balance > 0),
    begins_at timestamptz
) WITH (fillfactor = 50);

-- A world's row is the merchant's lock, and every transaction that writes for the merchant updates it. Half of each page stays
-- free, so that the update needs no new index entry. `seed` is a copy of the merchant's seed, which never changes: the
-- statement that takes the lock returns it, so that no transaction has to read `merchants` too.
CREATE TABLE IF NOT EXISTS worlds (
    merchant_id uuid PRIMARY KEY REFERENCES merchants ON DELETE CASCADE,
    seed bigint,
    id_sequence bigint NOT NULL DEFAULT 0,
    clock_frozen_at timestamptz,
    clock_offset interval NOT NULL DEFAULT '0',
    default_scenario text NOT NULL DEFAULT 'success' CHECK (default_scenario IN ('success', 'pending', 'failed')),
    approvals_expire_after interval CHECK (approvals_expire_after > '0'), -- null: they never expire
    review_threshold numeric(14, 2) DEFAULT 100000.00 CHECK (review_threshold > 0) -- null: no review
) WITH (fillfactor = 50);

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
);
CREATE INDEX IF NOT EXISTS api_keys_by_hash ON api_keys (key_hash);

-- The merchant of a key that does not name it, such as a demo key. The column is not named merchant_id, because every node of a
-- distributed database has a copy of this table. A row may outlive its key, which then is not found in `api_keys`.
CREATE TABLE IF NOT EXISTS key_merchants (
    key_hash bytea PRIMARY KEY,
    merchant uuid NOT NULL
);

-- Ended sessions of the console. An empty session means all sessions of the subject that began until `at`. The subject is an
-- API key's id or "operator". merchant_id is that of the key with which the session began; UUID zero for the operator's.
CREATE TABLE IF NOT EXISTS console_sign_outs (
    subject text NOT NULL,
    session text NOT NULL,
    at timestamptz NOT NULL,
    merchant_id uuid NOT NULL,
    PRIMARY KEY (merchant_id, subject, session)
);

-- ---- Idempotency keys, with the stored responses

CREATE TABLE IF NOT EXISTS idempotency_keys (
    merchant_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    status integer NOT NULL,
    body bytea NOT NULL,
    location text,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (merchant_id, key)
);
CREATE INDEX IF NOT EXISTS idempotency_keys_lapse ON idempotency_keys (merchant_id, expires_at);

-- The operator's. merchant_id is no merchant's: it is a slot that depends on the key alone (sandbox/unit_of_work/operator.py).
CREATE TABLE IF NOT EXISTS operator_keys (
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    status integer NOT NULL,
    body bytea NOT NULL,
    location text,
    expires_at timestamptz NOT NULL,
    merchant_id uuid NOT NULL,
    PRIMARY KEY (merchant_id, key)
);
CREATE INDEX IF NOT EXISTS operator_keys_lapse ON operator_keys (expires_at);

-- ---- Money

-- An account of the merchant, or the wallet of a user.
CREATE TABLE IF NOT EXISTS accounts (
    merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
    account text COLLATE "C" NOT NULL,
    balance numeric(20, 2) NOT NULL,
    version bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (merchant_id, account),
    CONSTRAINT never_negative CHECK (balance >= 0 OR account NOT IN ('AVAILABLE', 'LOCKED'))
) WITH (fillfactor = 50);

-- A movement of money from one account to another.
CREATE TABLE IF NOT EXISTS transfers (
    merchant_id uuid NOT NULL,
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
    CHECK (debit_account <> credit_account)
);
CREATE INDEX IF NOT EXISTS transfers_by_payout ON transfers (merchant_id, payout_id, id) WHERE payout_id IS NOT NULL;
-- Only transfers of the merchant's own balance are listed by reason; those of its users' wallets are not.
CREATE INDEX IF NOT EXISTS transfers_of_balance ON transfers (merchant_id, reason, id)
    WHERE reason IN ('TOP_UP', 'PAYOUT_LOCK', 'PAYOUT_SETTLE', 'PAYOUT_RELEASE', 'PAYOUT_RETURN');
-- By the wallet's owner: one account of the transfer is USER_FUNDS, and the other is the wallet, whose name ends in the user's
-- id.
CREATE INDEX IF NOT EXISTS transfers_of_wallets ON transfers (merchant_id,
        (right(CASE WHEN debit_account = 'USER_FUNDS' THEN credit_account ELSE debit_account END, 36)::uuid), reason, id)
    WHERE reason IN ('WALLET_EARN', 'WALLET_SPEND', 'WALLET_CREDIT', 'WALLET_ADVANCE', 'WALLET_FINAL', 'WALLET_CLAWBACK',
        'WALLET_PAYOUT', 'WALLET_GIVE_BACK');

-- ---- Payouts

-- `step` is the next step of the scenario, and `due_at` when it runs. `path` is a copy of the steps of the merchant's own
-- scenario that the payout follows, so that later changes to the scenario do not affect it.
CREATE TABLE IF NOT EXISTS payouts (
    merchant_id uuid NOT NULL,
    id uuid NOT NULL,
    merchant_reference text COLLATE "C" NOT NULL CHECK (length(merchant_reference) BETWEEN 1 AND 64),
    amount numeric(20, 2) NOT NULL CHECK (amount > 0),
    currency text NOT NULL CHECK (currency = 'PKR'),
    dest_type text COLLATE "C" NOT NULL CHECK (dest_type IN ('BANK', 'WALLET')),
    bank_code text,
    wallet_code text,
    account_number text NOT NULL,
    account_title text,
    status text COLLATE "C" NOT NULL CHECK (status IN ('REQUESTED', 'PENDING', 'PROCESSING', 'RETRY', 'ON_HOLD', 'IN_REVIEW',
        'SUCCESS', 'FAILED', 'CANCELLED', 'REJECTED', 'RETURNED')),
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
    path jsonb,
    scenario_header text,
    traceparent text,
    PRIMARY KEY (merchant_id, id),
    CHECK ((dest_type = 'BANK') = (bank_code IS NOT NULL)),
    CHECK ((dest_type = 'WALLET') = (wallet_code IS NOT NULL)),
    CHECK (status <> 'SUCCESS' OR psp_reference IS NOT NULL)
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS payouts_due ON payouts (merchant_id, due_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS payouts_of_status ON payouts (merchant_id, status, dest_type, id) WHERE status <> '';
CREATE INDEX IF NOT EXISTS payouts_by_user ON payouts (merchant_id, user_id, id) WHERE user_id IS NOT NULL;
CREATE UNIQUE INDEX IF NOT EXISTS payouts_by_reference ON payouts (merchant_id, merchant_reference)
    WHERE merchant_reference IS NOT NULL;
-- A bank's callback names a payout but no merchant; these two indexes find the merchant. They are hash indexes, so that the
-- planner cannot use them to read the payouts of all merchants in the order of ids for a list.
CREATE INDEX IF NOT EXISTS payouts_by_id ON payouts USING hash (id);
CREATE INDEX IF NOT EXISTS payouts_by_psp_reference ON payouts USING hash (psp_reference) WHERE psp_reference IS NOT NULL;

-- A pair of a payout's metadata, as 16 bytes of its SHA-256. A page of payouts with a pair is a range of the primary key, in the
-- order of ids.
CREATE TABLE IF NOT EXISTS payout_metadata (
    merchant_id uuid NOT NULL,
    pair uuid NOT NULL,
    payout_id uuid NOT NULL,
    PRIMARY KEY (merchant_id, pair, payout_id)
);

-- ---- Events and webhooks

-- What webhooks deliver. The events of a payout are also its timeline, one row per change. `actor` is the API key that requested
-- the change; null for a change by the worker or a bank.
CREATE TABLE IF NOT EXISTS events (
    merchant_id uuid NOT NULL,
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
    actor uuid,
    traceparent text,
    PRIMARY KEY (merchant_id, id),
    CHECK ((payout_id IS NULL) = (change IS NULL)),
    CHECK ((payout_id IS NULL) = (to_status IS NULL))
);
CREATE UNIQUE INDEX IF NOT EXISTS events_of_payout ON events (merchant_id, payout_id, change) WHERE payout_id IS NOT NULL;

-- `secret` is sealed, and so are `previous_secrets`, which still sign until they expire: an array of `[base64, expires_at]`,
-- newest first. `public_key` belongs to `secret`, if that is an Ed25519 key. `signing_time` null means 'host'. `rate_free_at`, in
-- the host's time, is when the rate limit allows the next attempt. `failing_since` is the merchant's time of the first failure
-- since the last success. `status_history` is an array of `{at, status, reason}`, oldest first. Deliveries of a `relayed`
-- endpoint are sent by a listener, not by workers.
CREATE TABLE IF NOT EXISTS webhook_endpoints (
    merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
    id uuid NOT NULL,
    url text NOT NULL,
    event_types text[] NOT NULL,
    signing text NOT NULL CHECK (signing IN ('v1', 'v1a', 'stripe', 'github', 'safepay', 'custom')),
    retry_profile text NOT NULL CHECK (retry_profile IN ('standard', 'fast', 'server_errors')),
    ordered boolean NOT NULL,
    rate_limit integer CHECK (rate_limit > 0),
    description text NOT NULL,
    secret bytea NOT NULL,
    status text NOT NULL CHECK (status IN ('ENABLED', 'DISABLED')),
    disabled_reason text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    signing_time text CHECK (signing_time IN ('host', 'merchant')),
    filters jsonb,
    custom_signing jsonb,
    max_in_flight integer CHECK (max_in_flight > 0),
    previous_secrets jsonb,
    rate_free_at timestamptz,
    failing_since timestamptz,
    status_history jsonb,
    relayed boolean,
    public_key text,
    wire jsonb,
    PRIMARY KEY (merchant_id, id)
);

-- The delivery of an event to an endpoint. It outlives the endpoint. `leased_until`, in the host's time, is when its claim
-- expires. If `resent` is true, someone asked for the next attempt.
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
    resent boolean,
    PRIMARY KEY (merchant_id, id)
) WITH (fillfactor = 70);
-- The only index that finds due deliveries. It begins with the endpoint, because endpoints take turns.
CREATE INDEX IF NOT EXISTS webhook_deliveries_due ON webhook_deliveries (merchant_id, endpoint_id, next_attempt_at, id)
    WHERE next_attempt_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS webhook_deliveries_of_event ON webhook_deliveries (merchant_id, event_id)
    WHERE event_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS webhook_deliveries_of_endpoint ON webhook_deliveries (merchant_id, endpoint_id, status, id)
    WHERE status <> '';

-- One attempt at a delivery: an HTTP call, or a fault in its place, whose kind is stored because the fault may be deleted.
-- `signed_at` is the webhook-timestamp as sent, in Unix seconds; null where nothing was sent. `request_headers` are the headers
-- of signatures other than Standard Webhooks. A `manual` attempt was asked for by a resend. The phases of the call are in
-- milliseconds; a phase that did not happen is null.
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
    signed_at bigint,
    fault_id uuid,
    fault_kind text,
    manual boolean,
    request_headers jsonb,
    error_class text,
    dns_ms real,
    connect_ms real,
    tls_ms real,
    first_byte_ms real,
    PRIMARY KEY (merchant_id, delivery_id, attempt)
);

-- What `psp certify` found out about a merchant's receiver. Not part of a merchant's world: a reset or a restore changes nothing
-- about a receiver outside the sandbox. All times are the host's. `heartbeat_at` is renewed while the test runs, so that a test
-- whose process died is not shown as running forever.
CREATE TABLE IF NOT EXISTS receiver_tests (
    merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
    id uuid NOT NULL,
    url text NOT NULL,
    probe_url text,
    signing text NOT NULL CHECK (signing IN ('v1', 'v1a', 'stripe', 'github', 'safepay', 'custom')),
    is_finished boolean NOT NULL,
    interrupted boolean NOT NULL,
    findings jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    PRIMARY KEY (merchant_id, id)
);

-- ---- Users, their transactions and sales

-- Each row has the totals of the wallet, updated with every transaction, so that no read has to add them up.
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
    CHECK ((dest_type IS NULL) = (account_number IS NULL)),
    CHECK ((dest_type IS NOT DISTINCT FROM 'BANK') = (bank_code IS NOT NULL)),
    CHECK ((dest_type IS NOT DISTINCT FROM 'WALLET') = (wallet_code IS NOT NULL))
) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS users_who_wait ON users (merchant_id, id) WHERE requested > 0;
CREATE UNIQUE INDEX IF NOT EXISTS users_by_external_id ON users (merchant_id, external_id) WHERE external_id IS NOT NULL;
CREATE UNIQUE INDEX IF NOT EXISTS users_by_vendor_user_id ON users (merchant_id, vendor_user_id)
    WHERE vendor_user_id IS NOT NULL;

-- The vendor feed, in the order of ids: what users earned and spent, and the payouts that they requested and were paid. Payouts
-- that ended unpaid are reversed by rows with negative amounts.
CREATE TABLE IF NOT EXISTS user_transactions (
    merchant_id uuid NOT NULL,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    type text COLLATE "C" NOT NULL CHECK (type IN ('EARNED', 'SPENT', 'PAYOUT', 'PAID_OUT')),
    amount numeric(20, 2) NOT NULL,
    reference text,
    transfer_id uuid,
    payout_id uuid,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (merchant_id, id),
    CONSTRAINT user_transactions_amount_check CHECK (amount > 0 OR (amount < 0 AND type IN ('PAYOUT', 'PAID_OUT'))),
    CHECK ((type IN ('EARNED', 'SPENT')) = (transfer_id IS NOT NULL)),
    CHECK ((type IN ('PAYOUT', 'PAID_OUT')) = (payout_id IS NOT NULL))
);
CREATE INDEX IF NOT EXISTS user_transactions_by_user ON user_transactions (merchant_id, user_id, type, id);

-- A sale is paid for in two parts, each at most once. `due_at` is when the next one is due, in the merchant's time. `attempts`
-- null means 0.
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
    attempts integer CHECK (attempts >= 0),
    last_error text,
    due_at timestamptz,
    PRIMARY KEY (merchant_id, id),
    FOREIGN KEY (merchant_id, user_id) REFERENCES users,
    CHECK ((status = 'PENDING') = (reconciled_at IS NULL)),
    CHECK (NOT advance_due OR (status = 'PENDING' AND advance_amount IS NULL)),
    CHECK (NOT final_due OR (status <> 'PENDING' AND final_amount IS NULL)),
    CONSTRAINT sales_due_at_check CHECK ((due_at IS NOT NULL) = (advance_due OR final_due))
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS sales_of_status ON sales (merchant_id, status, id) WHERE status <> '';
CREATE INDEX IF NOT EXISTS sales_of_user ON sales (merchant_id, user_id, status, id) WHERE status <> '';
CREATE INDEX IF NOT EXISTS sales_due ON sales (merchant_id, due_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS sales_to_advance ON sales (merchant_id, id) WHERE advance_due;
CREATE INDEX IF NOT EXISTS sales_to_settle ON sales (merchant_id, id) WHERE final_due;

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
);

-- ---- Bulk credits: uploaded files and their rows

-- `traceparent` is the upload's, or null if it is derived from the request id.
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
    traceparent text,
    PRIMARY KEY (merchant_id, id),
    CHECK (invalid + succeeded + failed <= total AND duplicates <= total)
) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS bulk_credits_to_do ON bulk_credits (merchant_id, id) WHERE status IN ('UPLOADED', 'PROCESSING');

-- `user_id` and `amount` are text because the row may be INVALID. A row that equals an earlier one names it (`same_as_line`), and
-- is a credit of its own. The primary key finds a row by status and line, and lists all rows as one range for each status, in
-- file order. Lines are unique within a file, because they are counted while the file is copied.
CREATE TABLE IF NOT EXISTS bulk_credit_items (
    merchant_id uuid NOT NULL,
    activity_id uuid NOT NULL,
    line integer NOT NULL CHECK (line > 0),
    user_id text NOT NULL,
    amount text NOT NULL,
    status text COLLATE "C" NOT NULL CHECK (status IN ('PENDING', 'SUCCEEDED', 'FAILED', 'INVALID')),
    error text,
    transfer_id uuid,
    same_as_line integer,
    PRIMARY KEY (merchant_id, activity_id, status, line),
    CHECK ((status = 'SUCCEEDED') = (transfer_id IS NOT NULL)),
    CONSTRAINT bulk_credit_items_same_as_line_check CHECK (same_as_line > 0 AND same_as_line < line)
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS bulk_credit_items_equal ON bulk_credit_items (merchant_id, activity_id, status, line)
    WHERE same_as_line IS NOT NULL;

-- ---- Data aggregated from a vendor's feed

-- The URL of a merchant's vendor, its sealed headers, and the position in its feed. The row is the lock of the aggregated data.
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
) WITH (fillfactor = 50);
-- It finds the merchants whose poll is due, so it does not begin with merchant_id. It is not a key, so this is allowed.
CREATE INDEX IF NOT EXISTS vendor_cursors_due ON vendor_cursors (next_poll_at) WHERE url IS NOT NULL;

-- Every call to a vendor. The rate limit counts these rows: a call counts from its start, even if its end is unknown.
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
) WITH (fillfactor = 70);

-- The rows that were read, each once by the vendor's id.
CREATE TABLE IF NOT EXISTS vendor_transactions (
    merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
    vendor_id text COLLATE "C" NOT NULL CHECK (length(vendor_id) BETWEEN 1 AND 200),
    user_id text COLLATE "C" NOT NULL CHECK (length(user_id) BETWEEN 1 AND 64),
    type text COLLATE "C" NOT NULL CHECK (type IN ('earned', 'spent', 'payout', 'paid_out')),
    amount numeric(20, 2) NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (merchant_id, vendor_id),
    CONSTRAINT vendor_transactions_amount_check CHECK (amount > 0 OR (amount < 0 AND type IN ('payout', 'paid_out')))
);

-- Their sums per user. A column is wider than that of one amount. A vendor may send a reversal before the row that it reverses,
-- so `payout` and `paid_out` can be negative for a while.
CREATE TABLE IF NOT EXISTS vendor_balances (
    merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
    user_id text COLLATE "C" NOT NULL CHECK (length(user_id) BETWEEN 1 AND 64),
    id uuid NOT NULL,
    earned numeric(30, 2) NOT NULL CHECK (earned >= 0),
    spent numeric(30, 2) NOT NULL CHECK (spent >= 0),
    payout numeric(30, 2) NOT NULL,
    paid_out numeric(30, 2) NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (merchant_id, user_id)
) WITH (fillfactor = 50);
CREATE INDEX IF NOT EXISTS vendor_balances_who_wait ON vendor_balances (merchant_id, id) WHERE payout > paid_out;

-- Rows that could not be parsed, as they were received.
CREATE TABLE IF NOT EXISTS vendor_dead_letters (
    merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
    id uuid NOT NULL,
    digest bytea NOT NULL CHECK (length(digest) = 32),
    raw text NOT NULL,
    reason text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (merchant_id, id),
    UNIQUE (merchant_id, digest)
);

-- ---- A merchant's own scenarios, and faults

CREATE TABLE IF NOT EXISTS scenario_rules (
    merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
    id uuid NOT NULL,
    name text COLLATE "C" NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    position integer NOT NULL CHECK (position > 0),
    match jsonb NOT NULL,
    steps jsonb NOT NULL,
    PRIMARY KEY (merchant_id, id),
    UNIQUE (merchant_id, name)
);

-- `matches` counts the requests or deliveries that matched a fault, `hits` those that it hit. The row's lock keeps both exact.
-- The first `skip` matches are spared.
CREATE TABLE IF NOT EXISTS faults (
    merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
    id uuid NOT NULL,
    target text COLLATE "C" NOT NULL CHECK (target IN ('api', 'webhooks')),
    kind text COLLATE "C" NOT NULL,
    match jsonb NOT NULL,
    parameters jsonb NOT NULL,
    probability double precision NOT NULL CHECK (probability BETWEEN 0 AND 1),
    count integer CHECK (count > 0),
    skip integer NOT NULL DEFAULT 0 CHECK (skip BETWEEN 0 AND 1000000),
    seed bigint,
    matches bigint NOT NULL CHECK (matches >= 0),
    hits bigint NOT NULL CHECK (hits BETWEEN 0 AND matches),
    expires_at timestamptz,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (merchant_id, id),
    CHECK (hits <= count)
) WITH (fillfactor = 50);

-- ---- Snapshots of worlds

-- `position` separates the ids created before a snapshot from those created after it. While `is_intact` is true, the world still
-- has all rows of the snapshot's append-only tables, and all other rows of these tables have later ids.
CREATE TABLE IF NOT EXISTS snapshots (
    merchant_id uuid NOT NULL REFERENCES merchants ON DELETE CASCADE,
    id uuid NOT NULL,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    rows integer NOT NULL CHECK (rows >= 0),
    size bigint NOT NULL CHECK (size >= 0),
    clock_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    position uuid,
    intact_rows integer,
    is_intact boolean NOT NULL DEFAULT false,
    PRIMARY KEY (merchant_id, id),
    CONSTRAINT snapshots_intact_position CHECK (NOT is_intact OR (position IS NOT NULL AND intact_rows IS NOT NULL))
);

-- A part of one table's rows: one column per table of the world, of which the row sets one. While snapshots have rows of a
-- table, PostgreSQL refuses to change the type of that table's columns, and to add a column with a default. A migration that
-- changes a type must delete the snapshots, drop the column here, and add it again.
CREATE TABLE IF NOT EXISTS snapshot_rows (
    merchant_id uuid NOT NULL,
    snapshot_id uuid NOT NULL,
    table_name text COLLATE "C" NOT NULL,
    part integer NOT NULL,
    vendor_cursors vendor_cursors[],
    vendor_transactions vendor_transactions[],
    vendor_balances vendor_balances[],
    vendor_dead_letters vendor_dead_letters[],
    bulk_credit_items bulk_credit_items[],
    bulk_credits bulk_credits[],
    sale_payments sale_payments[],
    sales sales[],
    user_transactions user_transactions[],
    users users[],
    webhook_attempts webhook_attempts[],
    webhook_deliveries webhook_deliveries[],
    webhook_endpoints webhook_endpoints[],
    events events[],
    transfers transfers[],
    scenario_rules scenario_rules[],
    faults faults[],
    payouts payouts[],
    idempotency_keys idempotency_keys[],
    accounts accounts[],
    payout_metadata payout_metadata[],
    worlds worlds[],
    PRIMARY KEY (merchant_id, snapshot_id, table_name, part),
    FOREIGN KEY (merchant_id, snapshot_id) REFERENCES snapshots ON DELETE CASCADE
);
-- The default compression takes longer than the rest of a snapshot. Not every server supports the faster one. Hashes and a single
-- row do not compress.
DO $$
DECLARE
    v_column name;
BEGIN
    FOR v_column IN
        SELECT attname FROM pg_attribute WHERE attrelid = 'snapshot_rows'::regclass AND attnum > 0 AND NOT attisdropped
            AND attndims > 0 AND attname NOT IN ('payout_metadata', 'worlds')
    LOOP
        EXECUTE format('ALTER TABLE snapshot_rows ALTER COLUMN %I SET COMPRESSION lz4', v_column);
    END LOOP;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END $$;

-- ---- The application's role. It can read and write all tables, but not change or delete the rows of append-only tables.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'psp_app') THEN
        CREATE ROLE psp_app NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- another database of this server was migrated at the same moment
END $$;
GRANT psp_app TO CURRENT_USER;
GRANT SELECT, INSERT ON transfers, events, user_transactions, sale_payments TO psp_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON merchants, worlds, api_keys, key_merchants, console_sign_outs, idempotency_keys,
    operator_keys, accounts, payouts, payout_metadata, webhook_endpoints, webhook_deliveries, webhook_attempts, receiver_tests,
    users, sales, bulk_credits, bulk_credit_items, vendor_cursors, vendor_fetches, vendor_transactions, vendor_balances,
    vendor_dead_letters, scenario_rules, faults, snapshots, snapshot_rows TO psp_app;
-- Which migrations have run: the readiness check reads it.
GRANT SELECT ON migration TO psp_app;
