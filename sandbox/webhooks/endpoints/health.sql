-- name: health
-- Each endpoint's deliveries of a status are a range of one index, of which this reads one end. So it costs the same however
-- many there are. A delivery fails if its last attempt failed: one that arrived and is resent has attempts too.
SELECT e.id::text AS endpoint_id, e.url, e.status, e.disabled_reason, e.failing_since, a.succeeded, a.failed, a.failed_at,
    a.failure, a.failed_delivery_id, f.id::text AS failing_id, f.event_type, f.since, f.attempts, g.given_up
FROM (
    SELECT id, url, status, disabled_reason, failing_since FROM webhook_endpoints
    WHERE merchant_id = $1 ORDER BY merchant_id, webhook_endpoints.id LIMIT $2
) e
LEFT JOIN LATERAL (
    SELECT p.id, p.attempts,
        (SELECT type FROM events WHERE events.merchant_id = $1 AND events.id >= p.event_id AND events.id <= p.event_id
            ORDER BY events.merchant_id, events.id) AS event_type,
        (SELECT at FROM webhook_attempts t WHERE t.merchant_id = $1 AND t.delivery_id = p.id
            ORDER BY t.merchant_id, t.delivery_id, t.attempt LIMIT 1) AS since
    FROM (
        SELECT w.id, w.event_id, w.attempts FROM webhook_deliveries w WHERE w.merchant_id = $1 AND w.status <> ''
            AND (w.endpoint_id, w.status) >= (e.id, 'PENDING') AND (w.endpoint_id, w.status) <= (e.id, 'PENDING')
        ORDER BY w.merchant_id, w.endpoint_id, w.status, w.id LIMIT $3
    ) p CROSS JOIN LATERAL (
        SELECT t.error_class FROM webhook_attempts t WHERE t.merchant_id = $1 AND t.delivery_id = p.id
        ORDER BY t.merchant_id DESC, t.delivery_id DESC, t.attempt DESC LIMIT 1
    ) t WHERE t.error_class IS NOT NULL ORDER BY p.id LIMIT 1
) f ON true
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE t.error_class IS NULL) AS succeeded,
        count(*) FILTER (WHERE t.error_class IS NOT NULL) AS failed,
        max(t.at) FILTER (WHERE t.error_class IS NOT NULL) AS failed_at,
        (array_agg(coalesce('HTTP ' || t.status, t.error_class) ORDER BY t.at DESC)
            FILTER (WHERE t.error_class IS NOT NULL))[1] AS failure,
        (array_agg(d.id::text ORDER BY t.at DESC) FILTER (WHERE t.error_class IS NOT NULL))[1] AS failed_delivery_id
    FROM (
        SELECT f.id WHERE f.id IS NOT NULL
        UNION
        (SELECT d.id FROM unnest($4::text[]) AS s (status) CROSS JOIN LATERAL (
            SELECT w.id FROM webhook_deliveries w WHERE w.merchant_id = $1 AND w.status <> ''
                AND (w.endpoint_id, w.status) >= (e.id, s.status) AND (w.endpoint_id, w.status) <= (e.id, s.status)
            ORDER BY w.merchant_id DESC, w.endpoint_id DESC, w.status DESC, w.id DESC LIMIT $3
        ) d ORDER BY d.id DESC LIMIT $3)
    ) d CROSS JOIN LATERAL (
        SELECT t.at, t.status, t.error_class FROM webhook_attempts t WHERE t.merchant_id = $1 AND t.delivery_id = d.id
        ORDER BY t.merchant_id DESC, t.delivery_id DESC, t.attempt DESC LIMIT $5
    ) t
) a
CROSS JOIN LATERAL (
    SELECT count(*) AS given_up FROM (
        SELECT 1 FROM webhook_deliveries w WHERE w.merchant_id = $1 AND w.status <> ''
            AND (w.endpoint_id, w.status) >= (e.id, 'FAILED') AND (w.endpoint_id, w.status) <= (e.id, 'FAILED')
        ORDER BY w.merchant_id, w.endpoint_id, w.status, w.id LIMIT $3
    ) w
) g;
