-- part: step_columns
id::text AS id, status, scenario, path::text AS path, step, due_at

-- name: steps
SELECT {step_columns} FROM payouts WHERE merchant_id = $1 AND due_at IS NOT NULL
ORDER BY merchant_id, due_at, payouts.id LIMIT $2;

-- name: step_of_payout
SELECT {step_columns} FROM (SELECT * FROM payouts
    WHERE payouts.merchant_id = $1 AND payouts.id >= $2 AND payouts.id <= $2
    ORDER BY payouts.merchant_id, payouts.id OFFSET 0) p WHERE due_at IS NOT NULL;

-- name: sales
SELECT {columns}, due_at FROM sales WHERE merchant_id = $1 AND due_at IS NOT NULL
ORDER BY merchant_id, due_at, sales.id LIMIT $2;

-- part: delivery_columns
d.id::text AS id, d.event_id::text AS event_id, d.endpoint_id::text AS endpoint_id, d.attempts, d.next_attempt_at AS due_at,
    v.type AS event_type, v.payout_id::text AS payout_id

-- name: deliveries
-- Each endpoint's deliveries are a range of one index, ordered by due time. So this reads at most 16 × limit rows.
SELECT {delivery_columns}, d.url FROM (
    SELECT l.*, e.id AS endpoint_id, e.url FROM webhook_endpoints e CROSS JOIN LATERAL (
        SELECT d.id, d.event_id, d.attempts, d.next_attempt_at FROM webhook_deliveries d
        WHERE d.merchant_id = $1 AND d.endpoint_id = e.id AND d.next_attempt_at IS NOT NULL
        ORDER BY d.merchant_id, d.endpoint_id, d.next_attempt_at, d.id LIMIT $2
    ) l WHERE e.merchant_id = $1 AND {sent_by_workers} ORDER BY l.next_attempt_at, l.id LIMIT $2
) d CROSS JOIN LATERAL (
    SELECT type, payout_id FROM events WHERE events.merchant_id = $1 AND events.id >= d.event_id
        AND events.id <= d.event_id ORDER BY events.merchant_id, events.id OFFSET 0
) v;

-- name: deliveries_of_payout
SELECT {delivery_columns}, e.url FROM (
    SELECT id, type, payout_id FROM events WHERE merchant_id = $1 AND payout_id = $3
    ORDER BY merchant_id DESC, payout_id DESC, change DESC LIMIT $4
) v CROSS JOIN LATERAL (
    SELECT * FROM webhook_deliveries w WHERE w.merchant_id = $1 AND w.event_id >= v.id AND w.event_id <= v.id
    ORDER BY w.merchant_id, w.event_id OFFSET 0
) d CROSS JOIN LATERAL (
    SELECT status, relayed, url FROM webhook_endpoints w
        WHERE w.merchant_id = $1 AND w.id >= d.endpoint_id AND w.id <= d.endpoint_id ORDER BY w.merchant_id, w.id OFFSET 0
) e WHERE d.next_attempt_at IS NOT NULL AND {sent_by_workers} ORDER BY d.next_attempt_at, d.id LIMIT $2;
