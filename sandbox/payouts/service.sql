-- name: list
-- Each (status, dest_type) is a range of one index, ordered by id. So a page reads at most 22 × limit rows (11 statuses, 2
-- destination types), however rare the matches and however many payouts exist. The statement compares row values: with separate
-- equalities, the planner may scan the primary key instead, hoping to find rare rows early.
SELECT p.* FROM unnest($2::text[]) AS s (status) CROSS JOIN unnest($3::text[]) AS d (dest_type)
CROSS JOIN LATERAL (
    SELECT {columns} FROM payouts
    WHERE merchant_id = $1 AND status <> '' AND (status, dest_type, id) < (s.status, d.dest_type, $4::uuid)
        AND (status, dest_type, id) >= (s.status, d.dest_type, $5::uuid)
    ORDER BY merchant_id DESC, status DESC, dest_type DESC, payouts.id DESC LIMIT $6
) p ORDER BY p.id DESC LIMIT $6;

-- name: list_all
SELECT {columns} FROM payouts WHERE merchant_id = $1 AND id < $2 AND id >= $3
ORDER BY merchant_id DESC, payouts.id DESC LIMIT $4;

-- name: list_by_user
SELECT {columns} FROM payouts
WHERE merchant_id = $1 AND (user_id, id) < ($2::uuid, $5::uuid) AND (user_id, id) >= ($2, $6::uuid)
    AND user_id IS NOT NULL AND status = ANY ($3::text[]) AND dest_type = ANY ($4::text[])
ORDER BY merchant_id DESC, payouts.user_id DESC, payouts.id DESC LIMIT $7;

-- name: list_by_metadata
-- The first metadata pair is a range of an index, ordered by id. Each of its payouts is looked up by primary key, and the other
-- filters are applied after that.
SELECT {columns} FROM payout_metadata m
CROSS JOIN LATERAL (SELECT * FROM payouts
    WHERE payouts.merchant_id = $1 AND payouts.id >= m.payout_id AND payouts.id <= m.payout_id
    ORDER BY payouts.merchant_id, payouts.id OFFSET 0) p
WHERE m.merchant_id = $1 AND (m.pair, m.payout_id) < ($2::uuid, $5::uuid) AND (m.pair, m.payout_id) >= ($2, $6::uuid)
    AND p.metadata @> $8::jsonb AND p.status = ANY ($3::text[]) AND p.dest_type = ANY ($4::text[])
    AND ($9::uuid IS NULL OR p.user_id = $9)
ORDER BY m.merchant_id DESC, m.pair DESC, m.payout_id DESC LIMIT $7;

-- name: timeline
SELECT created_at AS at, from_status AS source, to_status AS "to", cause, actor::text AS actor, request_id, traceparent,
    scenario, step, transfer_id::text AS ledger_transfer_id, id::text AS event_id
FROM events WHERE merchant_id = $1 AND payout_id = $2 ORDER BY change LIMIT 1000;
