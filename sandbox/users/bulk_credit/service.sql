-- name: get
SELECT {columns} FROM bulk_credits WHERE bulk_credits.merchant_id = $1 AND bulk_credits.id >= $2 AND bulk_credits.id <= $2
ORDER BY bulk_credits.merchant_id, bulk_credits.id;

-- name: list
SELECT {columns} FROM bulk_credits WHERE merchant_id = $1 AND id < $2 AND id >= $3
ORDER BY merchant_id DESC, bulk_credits.id DESC LIMIT $4;

-- name: insert
INSERT INTO bulk_credits (merchant_id, id, status, total, invalid, duplicates, succeeded, failed, request_id, traceparent,
    created_at, updated_at)
VALUES ($1, $2, 'UPLOADED', 0, 0, 0, 0, 0, $3, $4, $5, $5);

-- name: count
UPDATE bulk_credits SET total = $3, invalid = $4, duplicates = $5 WHERE merchant_id = $1 AND id = $2;

-- name: retry
UPDATE bulk_credits SET status = 'PROCESSING', failed = 0, completed_at = NULL, updated_at = $3
WHERE merchant_id = $1 AND id = $2;

-- name: retry_items
UPDATE bulk_credit_items SET status = 'PENDING', error = NULL
WHERE merchant_id = $1 AND activity_id = $2 AND status = 'FAILED';

-- part: items
-- Each status is a range of one index, ordered by line. So a page reads at most `limit` rows of each status.
SELECT i.* FROM unnest($3::text[]) AS s (status) CROSS JOIN LATERAL (
    SELECT line, user_id AS uuid, amount, status, error, transfer_id::text AS transfer_id, same_as_line FROM bulk_credit_items
    WHERE merchant_id = $1 AND activity_id = $2 AND status = s.status AND line > $4

-- part: page
ORDER BY merchant_id, activity_id, bulk_credit_items.status, line LIMIT $5

-- name: all_items
{items} {page}) i ORDER BY line LIMIT $5;

-- name: duplicates
{items} AND same_as_line IS NOT NULL {page}) i ORDER BY line LIMIT $5;
