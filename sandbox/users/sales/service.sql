-- name: has_user
SELECT true FROM users WHERE users.merchant_id = $1 AND users.id >= $2 AND users.id <= $2 ORDER BY users.merchant_id, users.id;

-- name: insert
INSERT INTO sales (merchant_id, id, user_id, brand, earning, status, advance_due, final_due, due_at, created_at)
VALUES ($1, $2, $3, $4, $5, 'PENDING', true, false, $6, $7);

-- name: get
SELECT {columns} FROM sales WHERE sales.merchant_id = $1 AND sales.id >= $2 AND sales.id <= $2
    ORDER BY sales.merchant_id, sales.id;

-- name: list
-- Each status is a range of one index, ordered by id. So a page reads at most 3 × limit rows.
SELECT s.* FROM unnest($2::text[]) AS k (status) CROSS JOIN LATERAL (
    SELECT {columns} FROM sales
    WHERE merchant_id = $1 AND status <> '' AND (status, id) < (k.status, $3::uuid) AND (status, id) >= (k.status, $4::uuid)
    ORDER BY merchant_id DESC, status DESC, sales.id DESC LIMIT $5
) s ORDER BY s.id DESC LIMIT $5;

-- name: list_by_user
SELECT s.* FROM unnest($2::text[]) AS k (status) CROSS JOIN LATERAL (
    SELECT {columns} FROM sales
    WHERE merchant_id = $1 AND status <> '' AND (user_id, status, id) < ($6::uuid, k.status, $3::uuid)
        AND (user_id, status, id) >= ($6::uuid, k.status, $4::uuid)
    ORDER BY merchant_id DESC, sales.user_id DESC, status DESC, sales.id DESC LIMIT $5
) s ORDER BY s.id DESC LIMIT $5;

-- name: to_reconcile
SELECT s.* FROM unnest($2::uuid[]) AS n (id) CROSS JOIN LATERAL (
    SELECT {columns} FROM sales WHERE sales.merchant_id = $1 AND sales.id >= n.id AND sales.id <= n.id
        ORDER BY sales.merchant_id, sales.id OFFSET 0
) s;

-- name: reconcile
INSERT INTO sales AS t (merchant_id, id, user_id, brand, earning, created_at, status, reconciled_at, advance_due, final_due,
    due_at)
SELECT $1, k.id, k.user_id, k.brand, k.earning, k.created_at, n.status, $2, false, true, $5
FROM unnest($3::uuid[], $4::text[]) AS n (id, status) CROSS JOIN LATERAL (
    SELECT * FROM sales WHERE sales.merchant_id = $1 AND sales.id >= n.id AND sales.id <= n.id
        ORDER BY sales.merchant_id, sales.id OFFSET 0
) k WHERE k.status = 'PENDING'
ON CONFLICT (merchant_id, id) DO UPDATE SET status = EXCLUDED.status, reconciled_at = EXCLUDED.reconciled_at,
    advance_due = EXCLUDED.advance_due, final_due = EXCLUDED.final_due, due_at = EXCLUDED.due_at;
