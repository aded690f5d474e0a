-- Users in a unit of work. `$1` is the merchant, whose lock the caller holds.

-- sandbox/infrastructure/db/statements.py explains the form of the lookups, and of an UPDATE written as INSERT with ON CONFLICT: only the
-- columns after DO UPDATE change.

-- name: read
-- The columns are COLUMNS of sandbox/domain/user.py.
SELECT u.*, (SELECT a.balance FROM accounts a WHERE a.merchant_id = $1 AND a.account = 'WALLET:' || u.id) AS wallet
FROM unnest($2::uuid[]) AS n (id)
CROSS JOIN LATERAL (
    SELECT id::text AS id, name, external_id, vendor_user_id, dest_type, bank_code, wallet_code, account_number, earned, spent,
        credited, advances, finals, requested, approved, paid, version, created_at
    FROM users WHERE users.merchant_id = $1 AND users.id >= n.id AND users.id <= n.id
    ORDER BY users.merchant_id, users.id OFFSET 0
) u;

-- name: credit
-- A file may credit a user more than once: its amounts are added up first, because ON CONFLICT can update a row only once.
INSERT INTO users AS t (merchant_id, id, name, vendor_user_id, created_at, earned, spent, advances, finals, requested, approved,
    paid, credited, version, updated_at)
SELECT $1, k.id, k.name, k.vendor_user_id, k.created_at, k.earned, k.spent, k.advances, k.finals, k.requested, k.approved,
    k.paid, k.credited + n.amount, k.version + n.changes, $2
FROM (
    SELECT user_id, sum(amount) AS amount, count(*) AS changes
    FROM json_to_recordset($3::json) AS c (user_id uuid, amount numeric) GROUP BY user_id
) n
CROSS JOIN LATERAL (
    SELECT * FROM users WHERE users.merchant_id = $1 AND users.id >= n.user_id AND users.id <= n.user_id
    ORDER BY users.merchant_id, users.id OFFSET 0
) k
ON CONFLICT (merchant_id, id) DO UPDATE SET credited = EXCLUDED.credited, version = EXCLUDED.version,
    updated_at = EXCLUDED.updated_at
RETURNING t.id::text AS id, t.version;
