-- name: read
-- Each id is looked up by itself: with `= ANY`, the planner may read all payouts of the merchant.
SELECT p.* FROM unnest($2::uuid[]) AS n (id) CROSS JOIN LATERAL (
    SELECT {columns} FROM payouts WHERE payouts.merchant_id = $1 AND payouts.id >= n.id AND payouts.id <= n.id
        ORDER BY payouts.merchant_id, payouts.id OFFSET 0
) p;

-- name: find
SELECT {columns} FROM payouts WHERE payouts.merchant_id = $1 AND payouts.merchant_reference >= $2
    AND payouts.merchant_reference <= $2 ORDER BY payouts.merchant_id, payouts.merchant_reference;
