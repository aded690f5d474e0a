-- name: get
-- One statement reads both rows as of the same moment. A reset or restore changes all settings but the rate limit, which belongs
-- to the merchant and not to its world.
SELECT w.default_scenario, w.review_threshold, m.rate_limit, w.approvals_expire_after
FROM worlds w CROSS JOIN merchants m WHERE w.merchant_id = $1 AND m.merchant_id = $1;

-- name: set
UPDATE worlds SET default_scenario = $2, review_threshold = $3, approvals_expire_after = $4 WHERE merchant_id = $1;

-- name: set_rate_limit
UPDATE merchants SET rate_limit = $2 WHERE merchant_id = $1;
