-- Lock a merchant and read what its unit of work needs. `$1` is the merchant in every statement.

-- Rows are looked up one key at a time: LATERAL, with OFFSET 0 so that the planner does not turn the look-up into a join.
-- With `= ANY` it may read all of the merchant's rows where it believes that there are few. `by_key` in sandbox/db/rows.py
-- explains why the key is a range with an ORDER BY.

-- name: lock
-- Taking ids takes the merchant's lock: the next worker for this merchant waits here until the previous one commits, and its
-- later statements see everything that was committed. Keep this a separate statement: a statement has one snapshot, taken
-- before the wait. Every worker locks this row before any other, so no two of them deadlock.
UPDATE worlds SET id_sequence = id_sequence + $2 WHERE merchant_id = $1
RETURNING id_sequence - $2 AS counter, seed, clock_frozen_at, clock_offset, default_scenario, approvals_expire_after,
    review_threshold;

-- name: read
SELECT a.balances, a.version,
    ARRAY(SELECT ROW (id::text, event_types, status) FROM webhook_endpoints WHERE merchant_id = $1 ORDER BY id) AS endpoints,
    ARRAY(SELECT ROW (k.key, k.fingerprint, k.status, k.body, k.location)
        FROM unnest($3::text[]) AS n (key)
        CROSS JOIN LATERAL (
            SELECT * FROM idempotency_keys
            WHERE idempotency_keys.merchant_id = $1 AND idempotency_keys.key >= n.key AND idempotency_keys.key <= n.key
            ORDER BY idempotency_keys.merchant_id, idempotency_keys.key OFFSET 0
        ) k
        WHERE k.expires_at > $5) AS keys,
    ARRAY(SELECT p.merchant_reference
        FROM unnest($4::text[]) AS n (reference)
        CROSS JOIN LATERAL (
            SELECT merchant_reference FROM payouts
            WHERE payouts.merchant_id = $1
                AND payouts.merchant_reference >= n.reference AND payouts.merchant_reference <= n.reference
            ORDER BY payouts.merchant_id, payouts.merchant_reference OFFSET 0
        ) p) AS taken,
    ARRAY(SELECT ROW (id::text, name, match::text, steps::text) FROM scenario_rules WHERE merchant_id = $1
        ORDER BY position) AS rules
FROM (
    SELECT array_agg(a.balance ORDER BY n.place) AS balances,
        sum(a.version) FILTER (WHERE n.account IN ('AVAILABLE', 'LOCKED'))::bigint AS version
    FROM unnest($2::text[]) WITH ORDINALITY AS n (account, place)
    CROSS JOIN LATERAL (
        SELECT balance, version FROM accounts
        WHERE accounts.merchant_id = $1 AND accounts.account >= n.account AND accounts.account <= n.account
        ORDER BY accounts.merchant_id, accounts.account OFFSET 0
    ) a
) a;

-- name: payouts_by_id
-- The columns are COLUMNS of sandbox/domain/payout.py.
SELECT p.*
FROM unnest($2::uuid[]) AS n (id)
CROSS JOIN LATERAL (
    SELECT id::text AS id, merchant_reference, amount, currency, dest_type, bank_code, wallet_code, account_number,
        account_title, status, scenario, failure_code, failure_reason, psp_reference, attempts, metadata::text AS metadata,
        user_id::text AS user_id, created_at, updated_at, processed_at, step, due_at, changes AS version, request_id,
        path::text AS path, scenario_header
    FROM payouts WHERE payouts.merchant_id = $1 AND payouts.id >= n.id AND payouts.id <= n.id
    ORDER BY payouts.merchant_id, payouts.id OFFSET 0
) p;

-- name: payouts_due
-- The columns are COLUMNS of sandbox/domain/payout.py.
SELECT id::text AS id, merchant_reference, amount, currency, dest_type, bank_code, wallet_code, account_number,
    account_title, status, scenario, failure_code, failure_reason, psp_reference, attempts, metadata::text AS metadata,
    user_id::text AS user_id, created_at, updated_at, processed_at, step, due_at, changes AS version, request_id,
    path::text AS path, scenario_header
FROM payouts WHERE merchant_id = $1 AND due_at <= $2
ORDER BY merchant_id, due_at, id LIMIT $3;
