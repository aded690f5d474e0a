-- name: next
SELECT {columns} FROM bulk_credits WHERE merchant_id = $1 AND status IN ('UPLOADED', 'PROCESSING')
ORDER BY merchant_id, bulk_credits.id LIMIT 1;

-- name: rows
SELECT i.line, i.user_id, i.amount, u.credited
FROM (
    SELECT line, user_id, amount FROM bulk_credit_items WHERE merchant_id = $1 AND activity_id = $2 AND status = 'PENDING'
    ORDER BY merchant_id, activity_id, status, line LIMIT $3
) i LEFT JOIN LATERAL (SELECT credited FROM users
    WHERE users.merchant_id = $1 AND users.id >= i.user_id::uuid AND users.id <= i.user_id::uuid
    ORDER BY users.merchant_id, users.id OFFSET 0) u ON true
ORDER BY i.line;

-- name: write_rows
-- A chunk is the next PENDING rows, so under the merchant's lock its first and last line delimit it. Each row's outcome is
-- looked up by its line: the planner would choose a join by statistics, and a file that has just arrived has none.
UPDATE bulk_credit_items SET status = $5::jsonb #>> ARRAY[line::text, 'status'], error = $5 #>> ARRAY[line::text, 'error'],
    transfer_id = ($5 #>> ARRAY[line::text, 'transfer_id'])::uuid
WHERE merchant_id = $1 AND activity_id = $2 AND status = 'PENDING' AND line BETWEEN $3 AND $4;

-- name: write
UPDATE bulk_credits SET status = $3, invalid = $4, succeeded = $5, failed = $6, updated_at = $7, completed_at = $8
WHERE merchant_id = $1 AND id = $2 RETURNING {columns};
