-- name: flows
-- The newest $4 transfers from $2 on, before $3, summed up by day. All wallets are one account.
SELECT day, from_account, to_account, count(*) AS count, sum(amount) AS amount, min(created_at) AS since FROM (
    SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS day, split_part(debit_account, ':', 1) AS from_account,
        split_part(credit_account, ':', 1) AS to_account, amount, created_at
    FROM transfers WHERE merchant_id = $1 AND transfers.id >= $2 AND transfers.id < $3
    ORDER BY merchant_id DESC, transfers.id DESC LIMIT $4
) t GROUP BY day, from_account, to_account ORDER BY day DESC, from_account, to_account LIMIT $5;
