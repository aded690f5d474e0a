-- part: event_columns
id::text AS id, type, created_at, payout_id::text AS payout_id, from_status

-- part: body_of_wanted
-- Of events of other types than the wanted ones, if some are wanted, only the ids count.
CASE WHEN $5::text[] IS NULL OR type = ANY ($5) THEN body END AS body

-- name: events
SELECT {event_columns}, {body_of_wanted} FROM events WHERE merchant_id = $1 AND id < $2 AND id >= $3
ORDER BY merchant_id DESC, events.id DESC LIMIT $4;

-- name: events_by_payout
SELECT {event_columns}, {body_of_wanted} FROM events WHERE merchant_id = $1 AND payout_id = $6 AND id < $2 AND id >= $3
ORDER BY merchant_id DESC, payout_id DESC, change DESC LIMIT $4;

-- name: event
SELECT {event_columns}, body FROM events WHERE events.merchant_id = $1 AND events.id >= $2 AND events.id <= $2
    ORDER BY events.merchant_id, events.id;

-- part: columns
d.id::text AS id, d.event_id::text AS event_id, (SELECT type FROM events
    WHERE events.merchant_id = $1 AND events.id >= d.event_id AND events.id <= d.event_id
    ORDER BY events.merchant_id, events.id) AS event_type, d.endpoint_id::text AS endpoint_id, d.status, d.attempts,
    d.next_attempt_at, d.created_at, d.updated_at

-- name: list_all
SELECT {columns} FROM webhook_deliveries d WHERE merchant_id = $1 AND d.id < $2 AND d.id >= $3
ORDER BY d.merchant_id DESC, d.id DESC LIMIT $4;

-- name: list
-- Each (endpoint, status) is a range of one index in id order, so a page reads a few times its own length per endpoint. The
-- query finds the endpoints by skipping through that index, because some of them may have been deleted.
WITH RECURSIVE endpoints (id) AS (
    SELECT n.id FROM unnest($5::uuid[]) AS n (id)
    UNION ALL
    SELECT f.endpoint_id FROM (
        SELECT endpoint_id FROM webhook_deliveries WHERE merchant_id = $1 AND status <> '' AND $5::uuid[] IS NULL
        ORDER BY merchant_id, endpoint_id LIMIT 1
    ) f
    UNION ALL
    SELECT (
        SELECT w.endpoint_id FROM webhook_deliveries w
        WHERE w.merchant_id = $1 AND w.status <> '' AND w.endpoint_id > e.id
        ORDER BY w.merchant_id, w.endpoint_id LIMIT 1
    ) FROM endpoints e WHERE $5::uuid[] IS NULL AND e.id IS NOT NULL
)
SELECT {columns} FROM (SELECT id FROM endpoints WHERE id IS NOT NULL) n
CROSS JOIN unnest($6::text[]) AS s (status)
CROSS JOIN LATERAL (
    SELECT * FROM webhook_deliveries w
    WHERE w.merchant_id = $1 AND w.status <> '' AND (w.endpoint_id, w.status, w.id) < (n.id, s.status, $2::uuid)
        AND (w.endpoint_id, w.status, w.id) >= (n.id, s.status, $3::uuid)
    ORDER BY w.merchant_id DESC, w.endpoint_id DESC, w.status DESC, w.id DESC LIMIT $4
) d ORDER BY d.id DESC LIMIT $4;

-- name: list_by_event
-- An event has at most one delivery per endpoint. The query orders them like the index on (merchant, event), so that only
-- that index fits. With an equality, the planner may scan the primary key instead, because that has the order of the result.
SELECT {columns} FROM (
    SELECT * FROM webhook_deliveries WHERE merchant_id = $1 AND event_id >= $5 AND event_id <= $5
    ORDER BY merchant_id, event_id OFFSET 0
) d WHERE d.id < $2 AND d.id >= $3
    AND status = ANY ($6::text[]) AND ($7::uuid[] IS NULL OR endpoint_id = ANY ($7)) AND ($8::uuid IS NULL OR $8 = (
        SELECT payout_id FROM events WHERE events.merchant_id = $1 AND events.id >= $5 AND events.id <= $5
        ORDER BY events.merchant_id, events.id
    )) ORDER BY d.id DESC LIMIT $4;

-- name: list_by_payout
-- The newest 1000 changes of a payout, as in its timeline, and then the deliveries of each.
SELECT {columns} FROM (
    SELECT id FROM events WHERE merchant_id = $1 AND payout_id = $5
    ORDER BY merchant_id DESC, payout_id DESC, change DESC LIMIT 1000
) v CROSS JOIN LATERAL (
    SELECT * FROM webhook_deliveries w WHERE w.merchant_id = $1 AND w.event_id >= v.id AND w.event_id <= v.id
    ORDER BY w.merchant_id, w.event_id OFFSET 0
) d WHERE d.id < $2 AND d.id >= $3
    AND status = ANY ($6::text[]) AND ($7::uuid[] IS NULL OR endpoint_id = ANY ($7)) ORDER BY d.id DESC LIMIT $4;

-- name: get
SELECT {columns} FROM webhook_deliveries d WHERE d.merchant_id = $1 AND d.id >= $2 AND d.id <= $2 ORDER BY d.merchant_id, d.id;

-- name: attempts
SELECT * FROM (
    SELECT a.attempt, a.at, a.url, a.signature, a.signed_at, a.fault_id::text AS fault_id, a.fault_kind, a.status,
        a.response_headers::text AS response_headers, a.response_body, a.error, a.error_class, a.dns_ms, a.connect_ms,
        a.tls_ms, a.first_byte_ms, a.duration_ms, a.manual, a.request_headers::text AS request_headers
    FROM webhook_attempts a WHERE a.merchant_id = $1 AND a.delivery_id = $2 ORDER BY a.attempt DESC LIMIT $3
) newest ORDER BY attempt;

-- name: sent
SELECT body, request_id, traceparent FROM events
    WHERE events.merchant_id = $1 AND events.id >= $2 AND events.id <= $2 ORDER BY events.merchant_id, events.id;

-- name: endpoint_of
SELECT n.status, d.endpoint_id::text AS id
FROM (SELECT endpoint_id FROM webhook_deliveries w WHERE w.merchant_id = $1 AND w.id >= $2 AND w.id <= $2
    ORDER BY w.merchant_id, w.id OFFSET 0) d
LEFT JOIN LATERAL (
    SELECT status FROM webhook_endpoints WHERE webhook_endpoints.merchant_id = $1
        AND webhook_endpoints.id >= d.endpoint_id AND webhook_endpoints.id <= d.endpoint_id
        ORDER BY webhook_endpoints.merchant_id, webhook_endpoints.id OFFSET 0
) n ON true;

-- name: resend
WITH d AS (
INSERT INTO webhook_deliveries AS t (merchant_id, id, event_id, endpoint_id, attempts, created_at, status, next_attempt_at,
    scheduled, leased_until, resent, updated_at)
SELECT $1, k.id, k.event_id, k.endpoint_id, k.attempts, k.created_at, 'PENDING', $3, 0, NULL, true, $3
FROM (SELECT $2::uuid AS id) n CROSS JOIN LATERAL (
    SELECT * FROM webhook_deliveries WHERE webhook_deliveries.merchant_id = $1 AND webhook_deliveries.id >= n.id
        AND webhook_deliveries.id <= n.id ORDER BY webhook_deliveries.merchant_id, webhook_deliveries.id FOR NO KEY UPDATE
) k WHERE true
ON CONFLICT (merchant_id, id) DO UPDATE SET status = EXCLUDED.status, next_attempt_at = EXCLUDED.next_attempt_at,
    scheduled = EXCLUDED.scheduled, leased_until = EXCLUDED.leased_until, resent = EXCLUDED.resent,
    updated_at = EXCLUDED.updated_at
RETURNING t.*)
SELECT {columns} FROM d;

-- name: format_of
-- How the endpoint of a delivery gets its events; no row if it was deleted.
SELECT signing, wire::text AS wire FROM webhook_endpoints WHERE webhook_endpoints.merchant_id = $1
    AND webhook_endpoints.id >= $2 AND webhook_endpoints.id <= $2
    ORDER BY webhook_endpoints.merchant_id, webhook_endpoints.id;
