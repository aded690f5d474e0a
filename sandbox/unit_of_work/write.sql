-- Write what a unit of work decided: each table with one statement, its rows in one JSON argument. `$1` is the merchant.

-- name: create
INSERT INTO payouts (merchant_id, id, merchant_reference, amount, currency, dest_type, bank_code, wallet_code, account_number,
    account_title, status, scenario, failure_code, failure_reason, psp_reference, attempts, metadata, user_id, step, due_at,
    changes, request_id, path, scenario_header, created_at, updated_at, processed_at)
SELECT $1, id, merchant_reference, amount, currency, dest_type, bank_code, wallet_code, account_number, account_title, status,
    scenario, failure_code, failure_reason, psp_reference, attempts, metadata, user_id, step, due_at, changes, request_id,
    path::jsonb, scenario_header, $2, $2, processed_at
FROM json_to_recordset($3::json) AS p (id uuid, merchant_reference text, amount numeric, currency text, dest_type text,
    bank_code text, wallet_code text, account_number text, account_title text, status text, scenario text, failure_code text,
    failure_reason text, psp_reference text, attempts int, metadata jsonb, user_id uuid, step int, due_at timestamptz,
    changes int, request_id text, path text, scenario_header text, processed_at timestamptz);

-- name: metadata
INSERT INTO payout_metadata (merchant_id, pair, payout_id)
SELECT $1, pair, payout_id FROM json_to_recordset($2::json) AS m (pair uuid, payout_id uuid);

-- name: change
-- An UPDATE by key, in the form that `update_by_key` in sandbox/db/rows.py explains: only the columns after DO UPDATE change.
INSERT INTO payouts AS t (merchant_id, id, merchant_reference, amount, currency, dest_type, bank_code, wallet_code,
    account_number, metadata, created_at, status, scenario, failure_code, failure_reason, psp_reference, attempts, step, due_at,
    changes, updated_at, processed_at, path, request_id)
SELECT $1, k.id, k.merchant_reference, k.amount, k.currency, k.dest_type, k.bank_code, k.wallet_code,
    k.account_number, k.metadata, k.created_at, n.status, n.scenario, n.failure_code, n.failure_reason, n.psp_reference,
    n.attempts, n.step, n.due_at, n.changes, $2, n.processed_at, n.path::jsonb, n.request_id
FROM json_to_recordset($3::json) AS n (id uuid, status text, scenario text, failure_code text, failure_reason text,
    psp_reference text, attempts int, step int, due_at timestamptz, changes int, processed_at timestamptz, path text,
    request_id text)
CROSS JOIN LATERAL (
    SELECT * FROM payouts WHERE payouts.merchant_id = $1 AND payouts.id >= n.id AND payouts.id <= n.id
    ORDER BY payouts.merchant_id, payouts.id OFFSET 0
) k
ON CONFLICT (merchant_id, id) DO UPDATE SET status = EXCLUDED.status, scenario = EXCLUDED.scenario,
    failure_code = EXCLUDED.failure_code, failure_reason = EXCLUDED.failure_reason, psp_reference = EXCLUDED.psp_reference,
    attempts = EXCLUDED.attempts, step = EXCLUDED.step, due_at = EXCLUDED.due_at, changes = EXCLUDED.changes,
    updated_at = EXCLUDED.updated_at, processed_at = EXCLUDED.processed_at, path = EXCLUDED.path,
    request_id = EXCLUDED.request_id;

-- name: events
INSERT INTO events (merchant_id, id, type, body, payout_id, change, from_status, to_status, cause, scenario, step, transfer_id,
    request_id, actor, created_at)
SELECT $1, id, type, body, payout_id, change, from_status, to_status, cause, scenario, step, transfer_id, request_id, actor, $2
FROM json_to_recordset($3::json) AS e (id uuid, type text, body text, payout_id uuid, change int, from_status text,
    to_status text, cause text, scenario text, step int, transfer_id uuid, request_id text, actor uuid);

-- name: deliveries
INSERT INTO webhook_deliveries (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, next_attempt_at,
    created_at, updated_at)
SELECT $1, id, event_id, endpoint_id, CASE WHEN enabled THEN 'PENDING' ELSE 'PAUSED' END, 0, 0,
    CASE WHEN enabled THEN $2::timestamptz END, $2, $2
FROM json_to_recordset($3::json) AS d (id uuid, event_id uuid, endpoint_id uuid, enabled boolean);

-- name: keys
-- An expired key stays in the unique index until it is purged, so a new request takes over its row.
INSERT INTO idempotency_keys AS k (merchant_id, key, fingerprint, status, body, location, expires_at)
SELECT $1, key, decode(fingerprint, 'base64'), status, decode(body, 'base64'), location, coalesce(expires_at, $2)
FROM json_to_recordset($3::json) AS n (key text, fingerprint text, status int, body text, location text,
    expires_at timestamptz)
ON CONFLICT (merchant_id, key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, status = EXCLUDED.status,
    body = EXCLUDED.body, location = EXCLUDED.location, expires_at = EXCLUDED.expires_at;
