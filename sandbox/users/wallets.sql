-- part: user
-- The expression and the condition of the wallet index, verbatim: the planner uses the index only for exactly these.
(right(CASE WHEN debit_account = 'USER_FUNDS' THEN credit_account ELSE debit_account END, 36)::uuid)

-- part: is_wallet_entry
reason IN ('WALLET_EARN', 'WALLET_SPEND', 'WALLET_CREDIT', 'WALLET_ADVANCE', 'WALLET_FINAL', 'WALLET_CLAWBACK',
    'WALLET_PAYOUT', 'WALLET_GIVE_BACK')

-- part: range
-- Each reason is a range of the index, ordered by id. So a page reads at most 8 × limit rows.
FROM transfers WHERE merchant_id = $1 AND ({user}, reason, id) < ($2::uuid, r.reason, $3::uuid)
    AND ({user}, reason, id) >= ($2::uuid, r.reason, $4::uuid) AND {is_wallet_entry}
ORDER BY merchant_id DESC, {user} DESC, reason DESC, transfers.id DESC LIMIT $5

-- name: history
SELECT t.* FROM unnest($6::text[]) AS r (reason) CROSS JOIN LATERAL (SELECT {entry_columns} {range}) t
ORDER BY transfer_id DESC LIMIT $5;

-- name: history_by_payout
SELECT {entry_columns} FROM transfers
WHERE merchant_id = $1 AND payout_id IS NOT NULL AND (payout_id, id) < ($6::uuid, $3::uuid)
    AND (payout_id, id) >= ($6, $4::uuid) AND $2::uuid = {user} AND {is_wallet_entry}
ORDER BY merchant_id DESC, transfers.payout_id DESC, transfers.id DESC LIMIT $5;

-- name: transactions
SELECT * FROM (
    SELECT t.* FROM unnest($6::text[]) AS k (type) CROSS JOIN LATERAL (
        SELECT id::text AS id, type AS kind, amount, reference, transfer_id::text, payout_id::text, created_at
        FROM user_transactions WHERE merchant_id = $1 AND (user_id, type, id) < ($2::uuid, k.type, $3::uuid)
            AND (user_id, type, id) >= ($2::uuid, k.type, $4::uuid)
        ORDER BY merchant_id DESC, user_id DESC, type DESC, user_transactions.id DESC LIMIT $5
    ) t
    UNION ALL
    SELECT t.* FROM unnest($7::text[]) AS r (reason) CROSS JOIN LATERAL (
        SELECT id::text AS id, reason AS kind, amount, description AS reference, id::text AS transfer_id,
            payout_id::text, created_at {range}
    ) t
) a ORDER BY id DESC LIMIT $5;
