-- name: world
SELECT m.name, m.seed, m.opening_balance, m.begins_at, m.rate_limit, w.default_scenario, w.review_threshold,
    w.approvals_expire_after, w.clock_frozen_at, w.clock_offset, w.id_sequence
FROM merchants m CROSS JOIN worlds w WHERE m.merchant_id = $1 AND w.merchant_id = $1;
