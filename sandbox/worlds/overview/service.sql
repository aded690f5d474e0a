-- name: payouts
SELECT status, failure_code, bank_code, wallet_code, count(*) AS count, sum(amount) AS amount, min(created_at) AS since FROM (
    SELECT status, failure_code, CASE WHEN failure_code IS NOT NULL THEN bank_code END AS bank_code,
        CASE WHEN failure_code IS NOT NULL THEN wallet_code END AS wallet_code, amount, created_at
    FROM payouts WHERE merchant_id = $1 ORDER BY merchant_id DESC, payouts.id DESC LIMIT $2
) p GROUP BY status, failure_code, bank_code, wallet_code;

-- name: open_payouts
-- Each status is a range of one index.
SELECT s.status, c.count FROM unnest($2::text[]) WITH ORDINALITY AS s (status, place) CROSS JOIN LATERAL (
    SELECT count(*) AS count FROM (
        SELECT 1 FROM payouts WHERE merchant_id = $1 AND payouts.status = s.status AND payouts.status <> ''
        ORDER BY merchant_id, payouts.status, dest_type, id LIMIT $3
    ) p
) c ORDER BY s.place;

-- name: deliveries
SELECT status, count(*) AS count, min(created_at) AS since FROM (
    SELECT status, created_at FROM webhook_deliveries WHERE merchant_id = $1
    ORDER BY merchant_id DESC, webhook_deliveries.id DESC LIMIT $2
) d GROUP BY status;

-- name: attempts
-- The lookups follow the order of the deliveries, and end as soon as there are enough attempts.
SELECT a.at, a.status, a.error IS NOT NULL AS has_error, a.duration_ms FROM (
    SELECT id FROM webhook_deliveries WHERE merchant_id = $1
    ORDER BY merchant_id DESC, webhook_deliveries.id DESC LIMIT $2
) d CROSS JOIN LATERAL (
    SELECT at, status, error, duration_ms, signature FROM webhook_attempts w
    WHERE w.merchant_id = $1 AND w.delivery_id = d.id
    ORDER BY w.merchant_id DESC, w.delivery_id DESC, w.attempt DESC LIMIT $3
) a WHERE a.signature <> '' LIMIT $4;

-- name: clock
SELECT clock_frozen_at, clock_offset FROM worlds WHERE merchant_id = $1;
