-- name: existing
SELECT u.* FROM unnest($2::text[]) AS n (external_id) CROSS JOIN LATERAL (
    SELECT external_id, vendor_user_id FROM users
        WHERE users.merchant_id = $1 AND users.external_id >= n.external_id AND users.external_id <= n.external_id
        ORDER BY users.merchant_id, users.external_id OFFSET 0
) u
UNION ALL
SELECT u.* FROM unnest($3::text[]) AS n (vendor_user_id) CROSS JOIN LATERAL (
    SELECT external_id, vendor_user_id FROM users
        WHERE users.merchant_id = $1 AND users.vendor_user_id >= n.vendor_user_id
        AND users.vendor_user_id <= n.vendor_user_id ORDER BY users.merchant_id, users.vendor_user_id OFFSET 0
) u;

-- name: insert
INSERT INTO users (merchant_id, id, name, external_id, vendor_user_id, dest_type, bank_code, wallet_code, account_number,
    earned, spent, credited, advances, finals, requested, approved, paid, version, created_at, updated_at)
SELECT $1, id, name, external_id, vendor_user_id, dest_type, bank_code, wallet_code, account_number,
    0, 0, 0, 0, 0, 0, 0, 0, 0, $2, $2
FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
    AS u (id, name, external_id, vendor_user_id, dest_type, bank_code, wallet_code, account_number);
