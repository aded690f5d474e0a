-- name: due
SELECT {columns} FROM sales WHERE merchant_id = $1 AND due_at IS NOT NULL AND due_at <= $2
ORDER BY merchant_id, due_at, sales.id LIMIT $3;

-- name: payments
INSERT INTO sale_payments (merchant_id, sale_id, kind, amount, transfer_id, created_at)
SELECT $1, sale_id, $2, amount, transfer_id, $3
FROM unnest($4::uuid[], $5::numeric[], $6::uuid[]) AS p (sale_id, amount, transfer_id);

-- name: open
SELECT {columns} FROM sales WHERE merchant_id = $1 AND {due} AND id > $2
ORDER BY merchant_id, sales.id LIMIT $3;

-- name: record_attempts
-- A sale whose attempt failed stays open: the next run retries it. `$5` is the time of the next scheduled run.
INSERT INTO sales AS t (merchant_id, id, user_id, brand, earning, status, reconciled_at, {other}, created_at, {paid}, {due},
    due_at, attempts, last_error)
SELECT $1, k.id, k.user_id, k.brand, k.earning, k.status, k.reconciled_at, k.{other}, k.created_at,
    coalesce(n.amount, k.{paid}), n.error IS NOT NULL, CASE WHEN n.error IS NOT NULL THEN $5::timestamptz END,
    coalesce(k.attempts, 0) + 1, n.error
FROM unnest($2::uuid[], $3::numeric[], $4::text[]) AS n (id, amount, error) CROSS JOIN LATERAL (
    SELECT * FROM sales WHERE sales.merchant_id = $1 AND sales.id >= n.id AND sales.id <= n.id
    ORDER BY sales.merchant_id, sales.id OFFSET 0
) k WHERE k.{due}
ON CONFLICT (merchant_id, id) DO UPDATE SET {paid} = EXCLUDED.{paid}, {due} = EXCLUDED.{due}, due_at = EXCLUDED.due_at,
    attempts = EXCLUDED.attempts, last_error = EXCLUDED.last_error;
