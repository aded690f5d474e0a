-- Claim the due deliveries of one relayed endpoint. `$1` is the merchant.

-- name: state
-- $2 and $3: the endpoint, and the host's time. `due_at` is when the next delivery is due that no listener is sending; those that
-- a listener is sending come first in the index, and there are few of them.
SELECT e.status, e.disabled_reason, w.clock_frozen_at, w.clock_offset, (
    SELECT d.next_attempt_at FROM webhook_deliveries d
    WHERE d.merchant_id = $1 AND d.endpoint_id = $2 AND d.next_attempt_at IS NOT NULL
        AND (d.leased_until IS NULL OR d.leased_until <= $3)
    ORDER BY d.merchant_id, d.endpoint_id, d.next_attempt_at, d.id LIMIT 1
) AS due_at
FROM (
    SELECT status, disabled_reason, relayed FROM webhook_endpoints
    WHERE webhook_endpoints.merchant_id = $1 AND webhook_endpoints.id >= $2 AND webhook_endpoints.id <= $2
    ORDER BY webhook_endpoints.merchant_id, webhook_endpoints.id OFFSET 0
) e
CROSS JOIN (SELECT clock_frozen_at, clock_offset FROM worlds WHERE merchant_id = $1) w
WHERE e.relayed;

-- name: lock
SELECT clock_frozen_at, clock_offset FROM worlds WHERE merchant_id = $1 FOR NO KEY UPDATE;

-- name: busy
-- $2 to $4: the endpoint, the merchant's time and the host's. Whether a listener is sending one of its deliveries.
SELECT EXISTS (
    SELECT 1 FROM (
        SELECT d.leased_until FROM webhook_deliveries d
        WHERE d.merchant_id = $1 AND d.endpoint_id = $2 AND d.next_attempt_at <= $3
        ORDER BY d.merchant_id, d.endpoint_id, d.next_attempt_at, d.id LIMIT 256
    ) f WHERE f.leased_until > $4);
