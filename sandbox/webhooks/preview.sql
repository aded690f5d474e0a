-- name: recent
SELECT id::text AS id, type, body, {is_sample} AS is_sample FROM events WHERE merchant_id = $1
ORDER BY merchant_id DESC, events.id DESC LIMIT $2;

-- name: send_sample
-- Not through the unit of work's events: those reach every endpoint that subscribes, and the live feed.
WITH event AS (
    INSERT INTO events (merchant_id, id, type, body, from_status, cause, request_id, actor, traceparent, created_at)
    VALUES ($1, $2, $3, $4, $5, 'api', $6, $7, $8, $9)
)
INSERT INTO webhook_deliveries (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, next_attempt_at, resent,
    created_at, updated_at)
VALUES ($1, $10, $2, $11, 'PENDING', 0, 0, $9, true, $9, $9);
