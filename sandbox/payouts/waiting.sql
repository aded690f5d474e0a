-- name: was_in_status
-- An attempt starts when the payout is reinitiated; the first attempt starts with the first change.
SELECT EXISTS (
    SELECT 1 FROM events WHERE merchant_id = $1 AND payout_id = $2 AND to_status = ANY ($3::text[])
        AND change >= coalesce((SELECT max(change) FROM events WHERE merchant_id = $1 AND payout_id = $2 AND type = $4), 0)
);
