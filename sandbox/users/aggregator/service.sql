-- name: balance
SELECT earned, spent, payout, paid_out FROM vendor_balances
    WHERE vendor_balances.merchant_id = $1 AND vendor_balances.user_id >= $2 AND vendor_balances.user_id <= $2
    ORDER BY vendor_balances.merchant_id, vendor_balances.user_id;

-- name: list_unpaid
SELECT id::text AS id, user_id, payout - paid_out AS requested FROM vendor_balances
WHERE merchant_id = $1 AND id < $2 AND id >= $3 AND payout > paid_out
ORDER BY vendor_balances.merchant_id, vendor_balances.id DESC LIMIT $4;

-- name: fetches
SELECT id::text AS id, url, page, at, outcome, status, rows, new_rows, dead_letters, duration_ms, error FROM vendor_fetches
WHERE merchant_id = $1 AND id < $2 AND id >= $3 ORDER BY merchant_id DESC, vendor_fetches.id DESC LIMIT $4;

-- name: dead_letters
SELECT id::text AS id, raw, reason, created_at FROM vendor_dead_letters
WHERE merchant_id = $1 AND id < $2 AND id >= $3 ORDER BY merchant_id DESC, vendor_dead_letters.id DESC LIMIT $4;

-- name: to_replay
SELECT id::text AS id, raw FROM vendor_dead_letters WHERE merchant_id = $1 AND id > $2
ORDER BY vendor_dead_letters.merchant_id, vendor_dead_letters.id LIMIT $3;

-- name: forget
-- Everything that the previous vendor has sent.
WITH transactions AS (DELETE FROM vendor_transactions WHERE merchant_id = $1),
    balances AS (DELETE FROM vendor_balances WHERE merchant_id = $1)
DELETE FROM vendor_dead_letters WHERE merchant_id = $1;
