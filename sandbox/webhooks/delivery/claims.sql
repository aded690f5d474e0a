-- Read what a claim of a merchant's due deliveries depends on. `$1` is the merchant.

-- name: clock
SELECT clock_frozen_at, clock_offset, EXISTS (
    SELECT 1 FROM webhook_endpoints e WHERE e.merchant_id = $1 AND e.status = 'ENABLED' AND e.relayed IS NOT TRUE
        AND (e.ordered OR e.rate_limit IS NOT NULL OR e.max_in_flight IS NOT NULL)
) AS has_paced, ARRAY(
    SELECT e.id::text FROM webhook_endpoints e WHERE e.merchant_id = $1 AND e.status = 'ENABLED'
) AS enabled FROM worlds WHERE merchant_id = $1;

-- name: lock
SELECT clock_frozen_at, clock_offset FROM worlds WHERE merchant_id = $1 FOR NO KEY UPDATE;

-- name: busy
-- Endpoints to which a worker is posting at this moment. Deliveries are claimed in the order of the index, so one that is in
-- progress is among the first. Only resends can be ahead of it; the LIMIT leaves room for them.
SELECT e.id::text FROM webhook_endpoints e
WHERE e.merchant_id = $1 AND e.status = 'ENABLED' AND EXISTS (
    SELECT 1 FROM (
        SELECT d.leased_until FROM webhook_deliveries d
        WHERE d.merchant_id = $1 AND d.endpoint_id = e.id AND d.next_attempt_at <= $2
        ORDER BY d.merchant_id, d.endpoint_id, d.next_attempt_at, d.id LIMIT 256
    ) f WHERE f.leased_until > $3);
