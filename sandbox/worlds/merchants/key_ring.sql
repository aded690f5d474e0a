-- name: merchant_of
SELECT merchant::text FROM key_merchants WHERE key_hash = $1;

-- name: lookup
SELECT k.id::text AS id, k.role, m.rate_limit, ARRAY(
    -- The faults that have hits left, as JSON that `to_fault` reads.
    SELECT json_build_array(id, kind, match, parameters, probability, seed) FROM faults f
    WHERE f.merchant_id = $1 AND target = 'api' AND hits < coalesce(count, hits + 1) ORDER BY id
) AS faults
FROM (SELECT id, role FROM api_keys WHERE merchant_id = $1 AND key_hash = $2 AND revoked_at IS NULL OFFSET 0) k
CROSS JOIN (SELECT rate_limit FROM merchants WHERE merchant_id = $1) m;
