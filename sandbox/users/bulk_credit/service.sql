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
