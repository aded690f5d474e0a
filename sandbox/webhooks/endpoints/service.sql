-- name: read_unused
-- The webhook secret that was returned with the merchant. No row if an endpoint already uses it.
SELECT webhook_secret FROM merchants m WHERE m.merchant_id = $1
    AND NOT EXISTS (SELECT 1 FROM webhook_endpoints e WHERE e.merchant_id = $1);

-- name: read_secret
SELECT secret FROM webhook_endpoints WHERE webhook_endpoints.merchant_id = $1 AND webhook_endpoints.id >= $2
    AND webhook_endpoints.id <= $2 ORDER BY webhook_endpoints.merchant_id, webhook_endpoints.id;

-- name: end_deliveries
-- Locks rows in the same order as recording attempts does. Otherwise the two could deadlock.
INSERT INTO webhook_deliveries AS t (merchant_id, id, event_id, endpoint_id, attempts, scheduled, created_at, status,
    next_attempt_at, leased_until, updated_at)
SELECT $1, k.id, k.event_id, k.endpoint_id, k.attempts, k.scheduled, k.created_at, 'FAILED', NULL, NULL, $4
FROM (
    SELECT id FROM webhook_deliveries
    WHERE merchant_id = $1 AND status <> ''
        AND (endpoint_id, status) >= ($2::uuid, $5::text) AND (endpoint_id, status) <= ($2, $5)
    ORDER BY merchant_id, endpoint_id, status, id LIMIT $3 FOR NO KEY UPDATE
) n CROSS JOIN LATERAL (
    SELECT * FROM webhook_deliveries WHERE webhook_deliveries.merchant_id = $1 AND webhook_deliveries.id >= n.id
        AND webhook_deliveries.id <= n.id ORDER BY webhook_deliveries.merchant_id, webhook_deliveries.id FOR NO KEY UPDATE
) k WHERE true
ON CONFLICT (merchant_id, id) DO UPDATE SET status = EXCLUDED.status, next_attempt_at = EXCLUDED.next_attempt_at,
    leased_until = EXCLUDED.leased_until, updated_at = EXCLUDED.updated_at;
