-- name: get
SELECT {columns} FROM users WHERE users.merchant_id = $1 AND users.id >= $2 AND users.id <= $2
    ORDER BY users.merchant_id, users.id;

-- name: has_external_id
SELECT true FROM (SELECT id FROM users WHERE users.merchant_id = $1 AND users.external_id >= $2
    AND users.external_id <= $2 ORDER BY users.merchant_id, users.external_id OFFSET 0) u WHERE id <> $3;

-- name: change
INSERT INTO users AS t (merchant_id, id, vendor_user_id, earned, spent, credited, advances, finals, requested, approved, paid,
    version, created_at, name, external_id, dest_type, bank_code, wallet_code, account_number, updated_at)
SELECT $1, k.id, k.vendor_user_id, k.earned, k.spent, k.credited, k.advances, k.finals, k.requested, k.approved, k.paid,
    k.version, k.created_at, $3, $4, $5, $6, $7, $8, $9
FROM (SELECT $2::uuid AS id) n CROSS JOIN LATERAL (
    SELECT * FROM users WHERE users.merchant_id = $1 AND users.id >= n.id AND users.id <= n.id
        ORDER BY users.merchant_id, users.id OFFSET 0
) k WHERE true
ON CONFLICT (merchant_id, id) DO UPDATE SET name = EXCLUDED.name, external_id = EXCLUDED.external_id,
    dest_type = EXCLUDED.dest_type, bank_code = EXCLUDED.bank_code, wallet_code = EXCLUDED.wallet_code,
    account_number = EXCLUDED.account_number, updated_at = EXCLUDED.updated_at
RETURNING {columns};

-- name: requests
SELECT id::text AS user_id, requested FROM users WHERE merchant_id = $1 AND requested > 0 AND id < $2
ORDER BY merchant_id DESC, users.id DESC LIMIT $3;
