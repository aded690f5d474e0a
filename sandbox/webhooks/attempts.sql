-- name: attempts
-- Each delivery's attempts are looked up by themselves, the newest of them.
SELECT a.* FROM unnest($2::uuid[]) AS d (id) CROSS JOIN LATERAL (
    SELECT w.delivery_id::text AS delivery_id, w.attempt, w.manual, w.at, w.status, w.error, w.error_class,
        w.duration_ms
    FROM webhook_attempts w WHERE w.merchant_id = $1 AND w.delivery_id = d.id
    ORDER BY w.merchant_id DESC, w.delivery_id DESC, w.attempt DESC LIMIT $3
) a ORDER BY a.delivery_id, a.attempt;
