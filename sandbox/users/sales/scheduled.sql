-- name: merchants
-- Like the sweep, this skips from the earliest entry of one merchant in a partial index to that of the next. So it reads one
-- entry per merchant with open sales, and none for others.
WITH RECURSIVE s AS (
    (SELECT merchant_id, due_at FROM sales WHERE merchant_id > $2 AND due_at IS NOT NULL
    ORDER BY merchant_id, due_at, id LIMIT 1)
    UNION ALL
    SELECT n.* FROM s CROSS JOIN LATERAL (
        SELECT merchant_id, due_at FROM sales WHERE merchant_id > s.merchant_id AND due_at IS NOT NULL
        ORDER BY merchant_id, due_at, id LIMIT 1
    ) n
)
SELECT s.merchant_id::text FROM s
CROSS JOIN LATERAL (SELECT clock_frozen_at, clock_offset FROM worlds WHERE worlds.merchant_id = s.merchant_id OFFSET 0) w
WHERE w.clock_frozen_at IS NULL AND s.due_at <= $1::timestamptz + w.clock_offset
LIMIT $3;
