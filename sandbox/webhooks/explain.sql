-- name: find
SELECT d.id::text AS id, d.endpoint_id::text AS endpoint_id, d.event_id::text AS event_id, d.status, d.scheduled,
    d.next_attempt_at, d.leased_until, d.resent, d.updated_at, w.clock_frozen_at, w.clock_offset, v.type,
    v.payout_id::text AS payout_id, v.change, v.from_status, v.to_status, v.cause, v.scenario, v.step,
    v.transfer_id::text AS transfer_id, v.request_id, v.actor::text AS actor, v.traceparent, v.created_at, n.url,
    n.status AS endpoint_status, n.disabled_reason, n.retry_profile, n.ordered, n.relayed, n.rate_limit, n.rate_free_at
FROM (SELECT * FROM webhook_deliveries t WHERE t.merchant_id = $1 AND t.id >= $2 AND t.id <= $2
    ORDER BY t.merchant_id, t.id OFFSET 0) d
CROSS JOIN LATERAL (SELECT * FROM events WHERE events.merchant_id = $1 AND events.id >= d.event_id
    AND events.id <= d.event_id ORDER BY events.merchant_id, events.id OFFSET 0) v
CROSS JOIN LATERAL (SELECT clock_frozen_at, clock_offset FROM worlds WHERE merchant_id = $1 OFFSET 0) w
LEFT JOIN LATERAL (
    SELECT * FROM webhook_endpoints WHERE webhook_endpoints.merchant_id = $1 AND webhook_endpoints.id >= d.endpoint_id
        AND webhook_endpoints.id <= d.endpoint_id ORDER BY webhook_endpoints.merchant_id, webhook_endpoints.id OFFSET 0
) n ON true;

-- name: transfer
SELECT {entry_columns} FROM transfers WHERE transfers.merchant_id = $1 AND transfers.id >= $2 AND transfers.id <= $2
    ORDER BY transfers.merchant_id, transfers.id;

-- name: attempts
SELECT * FROM (
    SELECT attempt, at, manual, signature <> '' AS is_sent, signed_at, status, error, error_class, fault_id::text AS fault_id,
        fault_kind, duration_ms, response_headers ->> 'retry-after' AS retry_after
    FROM webhook_attempts a WHERE a.merchant_id = $1 AND a.delivery_id = $2 ORDER BY a.attempt DESC LIMIT $3
) newest ORDER BY attempt;

-- name: api_key
-- The change that the request itself made names the API key; the changes that the worker made after it do not.
SELECT actor::text FROM (
    SELECT actor, request_id FROM events WHERE merchant_id = $1 AND payout_id = $2 AND change <= $3
    ORDER BY merchant_id DESC, payout_id DESC, change DESC LIMIT $5
) v WHERE request_id = $4 AND actor IS NOT NULL LIMIT 1;

-- name: earlier
SELECT v.id::text || ' (' || v.type || ')' FROM (
    SELECT id, type, change FROM events WHERE merchant_id = $1 AND payout_id = $2 AND change < $3
    ORDER BY merchant_id DESC, payout_id DESC, change DESC LIMIT $5
) v
CROSS JOIN LATERAL (
    SELECT endpoint_id, status FROM webhook_deliveries d
    WHERE d.merchant_id = $1 AND d.event_id >= v.id AND d.event_id <= v.id ORDER BY d.merchant_id, d.event_id OFFSET 0
) d
WHERE d.endpoint_id = $4 AND d.status = 'PENDING' ORDER BY v.change LIMIT 1;
