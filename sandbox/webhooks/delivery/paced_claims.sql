-- Claim the due deliveries of paced endpoints: ordered ones, and those with a limit. `$1` is the merchant.

-- name: lock
-- Claims for an endpoint take turns, so that each sees the leases and the slots that the previous one took.
SELECT id::text AS id, ordered, rate_limit, max_in_flight, rate_free_at FROM webhook_endpoints
WHERE merchant_id = $1 AND status = 'ENABLED' AND relayed IS NOT TRUE
    AND (ordered OR rate_limit IS NOT NULL OR max_in_flight IS NOT NULL)
ORDER BY merchant_id, id FOR NO KEY UPDATE;

-- name: lock_relayed
-- The same for one endpoint whose deliveries a listener sends.
SELECT id::text AS id, ordered, rate_limit, max_in_flight, rate_free_at FROM webhook_endpoints
WHERE merchant_id = $1 AND id >= $2 AND id <= $2 AND status = 'ENABLED' AND relayed
ORDER BY merchant_id, id FOR NO KEY UPDATE;

-- name: in_flight
-- $2 and $3: the merchant's time and the host's. The earliest due deliveries are claimed first, so those in progress are among
-- the first. Only deliveries that fell due late, such as those of a long transaction, can be ahead of them.
SELECT n.id::text AS id, count(*) AS count FROM unnest($4::uuid[]) AS n (id)
CROSS JOIN LATERAL (
    SELECT d.leased_until FROM webhook_deliveries d
    WHERE d.merchant_id = $1 AND d.endpoint_id = n.id AND d.next_attempt_at <= $2
    ORDER BY d.merchant_id, d.endpoint_id, d.next_attempt_at, d.id LIMIT 512
) f WHERE f.leased_until > $3 GROUP BY n.id;

-- name: candidates
-- $2 and $3: the merchant's time and the host's. $4 to $6: endpoints, whether they are ordered, and how many deliveries to read.
-- $7: the merchant's clock offset, NULL in a frozen world, in which no lease expires.
-- Returns due deliveries that no process is sending, the earliest first, and locks them until the end of the transaction.
SELECT e.id::text AS endpoint_id, c.id::text AS id, v.payout_id::text AS payout_id,
    b.blockers, b.blocked_until, c.attempts > 0 AND c.resent IS NOT TRUE AS is_attempted
FROM unnest($4::uuid[], $5::boolean[], $6::int[]) AS e (id, ordered, length)
CROSS JOIN LATERAL (
    SELECT d.id, d.event_id, d.attempts, d.resent, d.next_attempt_at FROM webhook_deliveries d
    WHERE d.merchant_id = $1 AND d.endpoint_id = e.id AND d.next_attempt_at <= $2
        AND (d.leased_until IS NULL OR d.leased_until <= $3)
    ORDER BY d.merchant_id, d.endpoint_id, d.next_attempt_at, d.id LIMIT e.length FOR NO KEY UPDATE SKIP LOCKED
) c
LEFT JOIN LATERAL (
    SELECT payout_id, change FROM events
    WHERE e.ordered AND events.merchant_id = $1 AND events.id >= c.event_id AND events.id <= c.event_id
    ORDER BY events.merchant_id, events.id OFFSET 0
) v ON true
LEFT JOIN LATERAL (
    SELECT array_agg(w.id::text) AS blockers,
        max(greatest(w.next_attempt_at, CASE WHEN w.leased_until > $3 THEN w.leased_until + $7::interval END)) AS blocked_until
    FROM (
        SELECT id FROM events
        WHERE events.merchant_id = $1 AND events.payout_id = v.payout_id AND events.change < v.change
        ORDER BY events.merchant_id, events.payout_id, events.change OFFSET 0
    ) o
    CROSS JOIN LATERAL (
        SELECT id, endpoint_id, status, next_attempt_at, leased_until FROM webhook_deliveries d
        WHERE d.merchant_id = $1 AND d.event_id >= o.id AND d.event_id <= o.id ORDER BY d.merchant_id, d.event_id OFFSET 0
    ) w WHERE w.endpoint_id = e.id AND w.status = 'PENDING'
) b ON true;

-- name: set_free_at
UPDATE webhook_endpoints SET rate_free_at = $3 WHERE merchant_id = $1 AND id = $2;

-- name: put_off
INSERT INTO webhook_deliveries AS t (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, created_at,
    updated_at, next_attempt_at)
SELECT $1, k.id, k.event_id, k.endpoint_id, k.status, k.attempts, k.scheduled, k.created_at, k.updated_at, n.at
FROM unnest($2::uuid[], $3::timestamptz[]) AS n (id, at) CROSS JOIN LATERAL (
    SELECT * FROM webhook_deliveries WHERE webhook_deliveries.merchant_id = $1 AND webhook_deliveries.id >= n.id
        AND webhook_deliveries.id <= n.id ORDER BY webhook_deliveries.merchant_id, webhook_deliveries.id OFFSET 0
) k WHERE true
ON CONFLICT (merchant_id, id) DO UPDATE SET next_attempt_at = EXCLUDED.next_attempt_at;

-- name: end_waits
INSERT INTO webhook_deliveries AS t (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, created_at,
    updated_at, next_attempt_at)
SELECT $1, k.id, k.event_id, k.endpoint_id, k.status, k.attempts, k.scheduled, k.created_at, k.updated_at, $3
FROM (
    SELECT id, attempts, resent, created_at FROM webhook_deliveries
    WHERE merchant_id = $1 AND endpoint_id = $2 AND next_attempt_at > $3
    ORDER BY merchant_id, endpoint_id, next_attempt_at, id LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED
) n CROSS JOIN LATERAL (
    SELECT * FROM webhook_deliveries WHERE webhook_deliveries.merchant_id = $1 AND webhook_deliveries.id >= n.id
        AND webhook_deliveries.id <= n.id ORDER BY webhook_deliveries.merchant_id, webhook_deliveries.id OFFSET 0
) k WHERE n.attempts = 0 OR n.resent
ON CONFLICT (merchant_id, id) DO UPDATE SET next_attempt_at = EXCLUDED.next_attempt_at;
