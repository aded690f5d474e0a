-- name: secrets
SELECT id, url, signing, secret, previous_secrets, public_key FROM webhook_endpoints WHERE merchant_id = $1;

-- name: vendor
SELECT url, headers FROM vendor_cursors WHERE merchant_id = $1;

-- name: set_world
UPDATE worlds SET seed = $2, id_sequence = $3, clock_frozen_at = $4, clock_offset = $5, default_scenario = $6,
    approvals_expire_after = make_interval(secs => $7), review_threshold = $8
WHERE merchant_id = $1;

-- name: set_merchant
UPDATE merchants SET name = $2, seed = $3, opening_balance = $4, begins_at = $5, rate_limit = $6 WHERE merchant_id = $1;
