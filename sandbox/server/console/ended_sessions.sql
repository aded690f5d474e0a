-- part: ended
EXISTS (
    SELECT 1 FROM console_sign_outs WHERE merchant_id = $1 AND subject = $2 AND session IN ('', $3) AND at >= $4
)

-- name: is_ended
SELECT {ended};

-- part: is_demo
EXISTS (
    SELECT 1 FROM api_keys d WHERE d.merchant_id = $1 AND d.key_hash = sha256('{demo_key}') AND d.revoked_at IS NULL
)

-- name: key
SELECT k.role, m.name, {is_demo} AS is_demo FROM api_keys k JOIN merchants m ON m.merchant_id = k.merchant_id
WHERE m.merchant_id = $1 AND k.merchant_id = $1 AND k.id = $5 AND k.revoked_at IS NULL AND NOT {ended};

-- name: merchant
SELECT m.name, {is_demo} AS is_demo FROM merchants m WHERE m.merchant_id = $1;

-- name: end
INSERT INTO console_sign_outs (merchant_id, subject, session, at) VALUES ($1, $2, $3, $4)
ON CONFLICT (merchant_id, subject, session) DO UPDATE SET at = EXCLUDED.at;

-- name: forget
DELETE FROM console_sign_outs WHERE merchant_id = $1 AND at < $2;
