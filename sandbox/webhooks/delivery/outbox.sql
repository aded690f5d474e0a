-- Claim webhook deliveries, and record their attempts. `$1` is the merchant in every statement but `claim`.

-- sandbox/infrastructure/db/statements.py explains the form of the lookups, and of an UPDATE written as INSERT with ON CONFLICT: only the
-- columns after DO UPDATE change. Workers without the merchant's lock lock each row (FOR NO KEY UPDATE).

-- name: claim
-- $1 and $2: merchants and their times. $4 to $6: merchants, endpoints and capacities. $7: the capacity of other endpoints.
-- $9: NULL, or for paced endpoints the ids of the deliveries to claim (see pacing.sql), which are the first unlocked ones.
-- Returns each enabled endpoint of the merchants, with the deliveries claimed for it, or once without any.
-- Each endpoint gets its own share, so a slow endpoint fills only its own. SKIP LOCKED lets two workers claim at the same
-- time. The lease, in the host's time, outlives the transaction, because the HTTP call is made after it.
-- The faults are read in the same statement, so a worker that sees a delivery also sees every fault created before it.
-- The rows of `due` are locked until all of them are written, so the statement claims exactly what it returns.
WITH due AS MATERIALIZED (
    SELECT m.merchant_id, e.id AS endpoint_id, e.url, e.secret, e.previous_secrets, e.retry_profile, e.signing, e.signing_time,
        e.custom_signing, e.wire, e.failing_since, e.faults, c.*
    FROM unnest($1::uuid[], $2::timestamptz[]) AS m (merchant_id, now)
    CROSS JOIN LATERAL (
        SELECT id, url, secret, previous_secrets::text AS previous_secrets, retry_profile, signing, signing_time,
            custom_signing::text AS custom_signing, wire::text AS wire, failing_since,
            ARRAY(SELECT json_build_array(id, kind, match, parameters, probability, seed) FROM faults f
                WHERE f.merchant_id = m.merchant_id AND target = 'webhooks' AND hits < coalesce(count, hits + 1) ORDER BY id
            ) AS faults
        FROM webhook_endpoints w WHERE w.merchant_id = m.merchant_id AND w.status = 'ENABLED' AND ($9::uuid[] IS NOT NULL)
            = (w.ordered OR w.rate_limit IS NOT NULL OR w.max_in_flight IS NOT NULL OR coalesce(w.relayed, false)) OFFSET 0
    ) e
    LEFT JOIN unnest($4::uuid[], $5::uuid[], $6::int[]) AS b (merchant_id, endpoint_id, capacity)
        ON b.merchant_id = m.merchant_id AND b.endpoint_id = e.id
    LEFT JOIN LATERAL (
        SELECT d.id, d.event_id, d.status, d.attempts, d.scheduled, d.next_attempt_at, d.created_at, d.updated_at, d.resent
        FROM webhook_deliveries d
        WHERE d.merchant_id = m.merchant_id AND d.endpoint_id = e.id AND d.next_attempt_at <= m.now
            AND (d.leased_until IS NULL OR d.leased_until <= $3) AND ($9 IS NULL OR d.id = ANY ($9))
        ORDER BY d.merchant_id, d.endpoint_id, d.next_attempt_at, d.id
        LIMIT coalesce(b.capacity, $7::int) FOR NO KEY UPDATE SKIP LOCKED
    ) c ON true
), claimed AS (
    INSERT INTO webhook_deliveries (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, created_at, updated_at,
        leased_until)
    SELECT m.merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, created_at, updated_at, $8
    FROM due m WHERE id IS NOT NULL
    ON CONFLICT (merchant_id, id) DO UPDATE SET leased_until = EXCLUDED.leased_until
)
SELECT m.merchant_id::text AS merchant_id, m.endpoint_id::text AS endpoint_id, m.url, m.secret, m.previous_secrets,
    m.retry_profile, m.signing, m.signing_time, m.custom_signing, m.wire, m.failing_since, m.faults, m.id::text AS id,
    m.event_id::text AS event_id, m.scheduled, m.attempts, m.next_attempt_at, m.resent,
    v.type, v.body, v.request_id, v.traceparent
FROM due m
LEFT JOIN LATERAL (
    SELECT type, body, request_id, traceparent FROM events
    WHERE events.merchant_id = m.merchant_id AND events.id >= m.event_id AND events.id <= m.event_id
    ORDER BY events.merchant_id, events.id OFFSET 0
) v ON true;

-- name: release
INSERT INTO webhook_deliveries AS t (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, created_at,
    updated_at, leased_until)
SELECT $1, k.id, k.event_id, k.endpoint_id, k.status, k.attempts, k.scheduled, k.created_at, k.updated_at, NULL
FROM unnest($2::uuid[]) AS n (id)
CROSS JOIN LATERAL (
    SELECT * FROM webhook_deliveries
    WHERE webhook_deliveries.merchant_id = $1 AND webhook_deliveries.id >= n.id AND webhook_deliveries.id <= n.id
    ORDER BY webhook_deliveries.merchant_id, webhook_deliveries.id FOR NO KEY UPDATE
) k
WHERE k.leased_until = $3
ON CONFLICT (merchant_id, id) DO UPDATE SET leased_until = EXCLUDED.leased_until;

-- name: record
-- If a worker has lost its lease, or the delivery was resent in the meantime, its attempt is logged and changes nothing else.
WITH n AS MATERIALIZED (
    SELECT * FROM json_to_recordset($3::json) AS n (id uuid, lease timestamptz, status text, next_attempt_at timestamptz,
        scheduled int, at timestamptz, url text, signature text, signed_at bigint, fault_id uuid, fault_kind text,
        http_status int, headers jsonb, body text, error text, error_class text, dns_ms real, connect_ms real, tls_ms real,
        first_byte_ms real, duration_ms int, manual boolean, request_headers jsonb)
), d AS (
    INSERT INTO webhook_deliveries AS t (merchant_id, id, event_id, endpoint_id, created_at, attempts, status, next_attempt_at,
        scheduled, leased_until, resent, updated_at)
    SELECT $1, k.id, k.event_id, k.endpoint_id, k.created_at, k.attempts + 1,
        CASE WHEN k.leased_until = n.lease THEN n.status ELSE k.status END,
        CASE WHEN k.leased_until = n.lease THEN n.next_attempt_at ELSE k.next_attempt_at END,
        CASE WHEN k.leased_until = n.lease THEN n.scheduled ELSE k.scheduled END,
        CASE WHEN k.leased_until = n.lease THEN NULL ELSE k.leased_until END,
        CASE WHEN k.leased_until = n.lease THEN NULL ELSE k.resent END,
        $2
    FROM n
    CROSS JOIN LATERAL (
        SELECT * FROM webhook_deliveries
        WHERE webhook_deliveries.merchant_id = $1 AND webhook_deliveries.id >= n.id AND webhook_deliveries.id <= n.id
        ORDER BY webhook_deliveries.merchant_id, webhook_deliveries.id FOR NO KEY UPDATE
    ) k
    ON CONFLICT (merchant_id, id) DO UPDATE SET attempts = EXCLUDED.attempts, status = EXCLUDED.status,
        next_attempt_at = EXCLUDED.next_attempt_at, scheduled = EXCLUDED.scheduled, leased_until = EXCLUDED.leased_until,
        resent = EXCLUDED.resent, updated_at = EXCLUDED.updated_at
    RETURNING t.id, t.attempts
)
INSERT INTO webhook_attempts (merchant_id, delivery_id, attempt, at, url, signature, signed_at, fault_id, fault_kind, status,
    response_headers, response_body, error, error_class, dns_ms, connect_ms, tls_ms, first_byte_ms, duration_ms, manual,
    request_headers)
SELECT $1, n.id, d.attempts, n.at, n.url, n.signature, n.signed_at, n.fault_id, n.fault_kind, n.http_status, n.headers, n.body,
    n.error, n.error_class, n.dns_ms, n.connect_ms, n.tls_ms, n.first_byte_ms, n.duration_ms, n.manual, n.request_headers
FROM n JOIN d ON d.id = n.id;

-- name: lock_ordered
SELECT 1 FROM webhook_endpoints WHERE merchant_id = $1 AND id = ANY ($2::uuid[]) ORDER BY merchant_id, id FOR NO KEY UPDATE;

-- name: release_followers
-- Deliveries of these payouts that were put off because of a blocker are due again; claims decide which of them can be sent.
-- One that was attempted has a due time of its own.
INSERT INTO webhook_deliveries AS t (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, created_at,
    updated_at, next_attempt_at)
SELECT $1, k.id, k.event_id, k.endpoint_id, k.status, k.attempts, k.scheduled, k.created_at, k.updated_at,
    CASE WHEN k.attempts = 0 THEN least(k.created_at, $2) ELSE $2 END
FROM unnest($3::uuid[], $4::uuid[]) AS n (endpoint_id, payout_id)
CROSS JOIN LATERAL (
    SELECT id FROM events WHERE events.merchant_id = $1 AND events.payout_id = n.payout_id
    ORDER BY events.merchant_id, events.payout_id, events.change OFFSET 0
) v
CROSS JOIN LATERAL (
    SELECT * FROM webhook_deliveries d
    WHERE d.merchant_id = $1 AND d.event_id >= v.id AND d.event_id <= v.id AND d.endpoint_id = n.endpoint_id
        AND d.status = 'PENDING' AND d.next_attempt_at > $2 AND (d.attempts = 0 OR d.resent)
    ORDER BY d.merchant_id, d.event_id FOR NO KEY UPDATE
) k
ON CONFLICT (merchant_id, id) DO UPDATE SET next_attempt_at = EXCLUDED.next_attempt_at;
