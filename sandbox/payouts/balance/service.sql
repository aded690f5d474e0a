-- name: balance
SELECT a.* FROM unnest('{AVAILABLE,LOCKED}'::text[]) WITH ORDINALITY AS n (account, place) CROSS JOIN LATERAL (
    SELECT account, balance, version, updated_at FROM accounts WHERE merchant_id = $1 AND account = n.account OFFSET 0
) a ORDER BY n.place;

-- name: history
-- Each reason is a range of one index, ordered by id. So a page reads at most 5 × limit rows. The statement repeats the
-- condition of that partial index (`reason IN …`); without it, the planner would not use the index.
SELECT t.* FROM unnest($2::text[]) AS r (reason) CROSS JOIN LATERAL (
    SELECT {entry_columns} FROM transfers WHERE merchant_id = $1 AND (reason, id) <= (r.reason, $3::uuid)
        AND (reason, id) >= (r.reason, $4::uuid) AND reason IN ('TOP_UP', 'PAYOUT_LOCK', 'PAYOUT_SETTLE', 'PAYOUT_RELEASE',
            'PAYOUT_RETURN')
    ORDER BY merchant_id DESC, reason DESC, transfers.id DESC LIMIT $5
) t ORDER BY transfer_id DESC LIMIT $5;

-- name: history_by_payout
SELECT {entry_columns} FROM transfers
WHERE merchant_id = $1 AND (payout_id, id) <= ($6::uuid, $3::uuid) AND (payout_id, id) >= ($6, $4)
    AND payout_id IS NOT NULL AND reason = ANY ($2::text[])
ORDER BY merchant_id DESC, transfers.payout_id DESC, transfers.id DESC LIMIT $5;
