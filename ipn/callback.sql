-- name: find
-- Merchants with the same seed have payouts with the same ids, and banks may reuse a reference for several merchants. The
-- signature determines the merchant. The newest merchants come first. A scenario rule can give a reference to several payouts of
-- a merchant; two of them are enough to know that the reference does not identify one.
WITH named AS MATERIALIZED (SELECT id, merchant_id FROM payouts WHERE {named} = $1 LIMIT 10000)
SELECT p.payout_ids, m.*, w.*
FROM (
    SELECT merchant_id, (array_agg(id::text))[:2] AS payout_ids FROM named
    GROUP BY merchant_id ORDER BY merchant_id DESC LIMIT $2
) p CROSS JOIN LATERAL (
    SELECT merchant_id::text AS merchant_id, ipn_secret FROM merchants WHERE merchant_id = p.merchant_id OFFSET 0
) m CROSS JOIN LATERAL (
    SELECT clock_frozen_at, clock_offset FROM worlds WHERE merchant_id = p.merchant_id OFFSET 0
) w;

-- name: find_of_merchant
SELECT ARRAY(SELECT id::text FROM payouts WHERE merchant_id = $1 AND {named} = $2 LIMIT 2) AS payout_ids,
    m.merchant_id::text, m.ipn_secret, w.clock_frozen_at, w.clock_offset
FROM merchants m JOIN worlds w ON w.merchant_id = $1 WHERE m.merchant_id = $1;

-- name: newest_merchants
SELECT ARRAY[]::text[] AS payout_ids, m.merchant_id::text, m.ipn_secret, w.clock_frozen_at, w.clock_offset
FROM merchants m CROSS JOIN LATERAL (SELECT * FROM worlds WHERE merchant_id = m.merchant_id OFFSET 0) w
ORDER BY m.merchant_id DESC LIMIT $1;
