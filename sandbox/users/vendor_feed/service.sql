-- name: page
-- Ordered by id. Ids increase as rows are added, so a row never moves to another page. One statement reads the count and the
-- page as of the same moment. It counts rows in the primary key's index, and fetches only the page's rows. (ORDER BY in the
-- count prevents a scan of the whole table if one merchant owns most of it.)
SELECT (SELECT count(*) FROM (
    SELECT 1 FROM user_transactions WHERE merchant_id = $1 AND id >= $2 AND id < $3 ORDER BY merchant_id, id
) c) AS total, p.* FROM (SELECT 1) one
LEFT JOIN LATERAL (
    SELECT t.id::text AS id, u.vendor_user_id, t.created_at, lower(t.type) AS type, t.amount FROM (
        SELECT id FROM user_transactions WHERE merchant_id = $1 AND id >= $2 AND id < $3
        ORDER BY merchant_id, id OFFSET $4 LIMIT $5
    ) part
    CROSS JOIN LATERAL (SELECT * FROM user_transactions
        WHERE user_transactions.merchant_id = $1 AND user_transactions.id >= part.id
        AND user_transactions.id <= part.id ORDER BY user_transactions.merchant_id, user_transactions.id OFFSET 0) t
    CROSS JOIN LATERAL (SELECT vendor_user_id FROM users
        WHERE users.merchant_id = $1 AND users.id >= t.user_id AND users.id <= t.user_id
        ORDER BY users.merchant_id, users.id OFFSET 0) u
    ORDER BY t.id
) p ON true;
