-- part: waits
-- A delivery that waits for its next attempt: no worker is sending it at the moment. It may be due already, and wait its turn.
(status = 'PENDING' AND scheduled > 0 AND leased_until IS NULL)

-- name: failed
SELECT d.id::text AS id, d.event_id::text AS event_id, v.type, v.is_sample
FROM (
    SELECT w.id, w.event_id, w.status <> 'PENDING' OR {waits} AS may_be_sent FROM webhook_deliveries w
    WHERE w.merchant_id = $1 AND w.status <> '' AND (w.endpoint_id, w.status, w.id) > ($2, $3, $4::uuid)
        AND (w.endpoint_id, w.status, w.id) < ($2, $3, $5::uuid)
    ORDER BY w.merchant_id, w.endpoint_id, w.status, w.id LIMIT $6
) d LEFT JOIN LATERAL (
    SELECT type, {is_sample} AS is_sample FROM events
        WHERE d.may_be_sent AND events.merchant_id = $1 AND events.id >= d.event_id AND events.id <= d.event_id
        ORDER BY events.merchant_id, events.id OFFSET 0
) v ON true ORDER BY d.id;

-- name: events
-- `may_be_sent` is null if the endpoint never had a delivery of the event. Only then is the body needed.
SELECT v.id::text AS id, v.type, v.is_sample, d.id::text AS delivery_id, d.may_be_sent,
    CASE WHEN d.id IS NULL THEN v.body END AS body
FROM (
    SELECT id, type, body, {is_sample} AS is_sample FROM events WHERE merchant_id = $1 AND events.id > $3 AND events.id < $4
    ORDER BY merchant_id, events.id LIMIT $5
) v LEFT JOIN LATERAL (
    SELECT w.id, w.status <> 'PENDING' OR {waits} AS may_be_sent FROM webhook_deliveries w
    WHERE w.merchant_id = $1 AND w.event_id >= v.id AND w.event_id <= v.id AND w.endpoint_id = $2
    ORDER BY w.merchant_id, w.event_id OFFSET 0
) d ON true ORDER BY v.id;

-- name: send_again
-- Every delivery gets the same due time, so that the endpoint receives them in their original order.
INSERT INTO webhook_deliveries AS t (merchant_id, id, event_id, endpoint_id, attempts, created_at, status, next_attempt_at,
    scheduled, leased_until, resent, updated_at)
SELECT $1, k.id, k.event_id, k.endpoint_id, k.attempts, k.created_at, 'PENDING', $3, 0, NULL, true, $4
FROM unnest($2::uuid[]) AS n (id) CROSS JOIN LATERAL (
    SELECT * FROM webhook_deliveries WHERE webhook_deliveries.merchant_id = $1 AND webhook_deliveries.id >= n.id
        AND webhook_deliveries.id <= n.id ORDER BY webhook_deliveries.merchant_id, webhook_deliveries.id FOR NO KEY UPDATE
) k WHERE status <> 'PENDING' OR {waits}
ON CONFLICT (merchant_id, id) DO UPDATE SET status = EXCLUDED.status, next_attempt_at = EXCLUDED.next_attempt_at,
    scheduled = EXCLUDED.scheduled, leased_until = EXCLUDED.leased_until, resent = EXCLUDED.resent,
    updated_at = EXCLUDED.updated_at
RETURNING t.id::text AS id;

-- name: create
INSERT INTO webhook_deliveries (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, next_attempt_at, resent,
    created_at, updated_at)
SELECT $1, n.id, n.event_id, $2, 'PENDING', 0, 0, $5, true, $6, $6 FROM unnest($3::uuid[], $4::uuid[]) AS n (id, event_id);
