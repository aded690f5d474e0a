-- name: count
-- The update locks the fault's row until the hit is decided, so a fault with a count of 1 hits once across all processes.
UPDATE faults f SET matches = f.matches + 1 FROM worlds w
WHERE f.merchant_id = $1 AND f.id = $2 AND w.merchant_id = $1 AND (f.count IS NULL OR f.hits < f.count)
    AND (f.expires_at IS NULL OR CASE WHEN w.clock_frozen_at IS NULL THEN f.expires_at - $3::timestamptz > w.clock_offset
        ELSE f.expires_at > w.clock_frozen_at END)
RETURNING f.matches, f.skip;

-- name: hit
UPDATE faults SET hits = hits + 1 WHERE merchant_id = $1 AND id = $2;
