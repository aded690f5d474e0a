-- name: clock
SELECT clock_frozen_at, clock_offset FROM worlds WHERE merchant_id = $1;

-- name: has_activity
-- If a merchant has only an opening balance, its clock can go back: all later ids and times depend on the clock alone.
SELECT EXISTS (SELECT 1 FROM events WHERE merchant_id = $1) OR EXISTS (SELECT 1 FROM users WHERE merchant_id = $1);

-- name: unfinished
SELECT EXISTS (
    SELECT 1 FROM (SELECT fingerprint, status FROM idempotency_keys
        WHERE idempotency_keys.merchant_id = $1 AND idempotency_keys.key >= $2 AND idempotency_keys.key <= $2
        ORDER BY idempotency_keys.merchant_id, idempotency_keys.key OFFSET 0) k
    WHERE k.fingerprint = $3 AND k.status = $4
);
