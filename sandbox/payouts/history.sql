-- name: histories
-- At most 1000 changes of each payout, as in its timeline. Each payout is looked up by itself.
SELECT n.id::text AS payout_id, e.id::text AS event_id, e.to_status, e.created_at
FROM unnest($2::uuid[]) AS n (id) CROSS JOIN LATERAL (
    SELECT events.id, change, to_status, created_at FROM events WHERE events.merchant_id = $1 AND events.payout_id = n.id
    ORDER BY events.merchant_id, events.payout_id, events.change LIMIT 1000
) e ORDER BY n.id, e.change;

-- name: numbered
-- How many payouts there are up to $7, and the ids of one part of them, newest first. With the index of `list`.
SELECT count(*) AS count, (array_agg(id::text ORDER BY id DESC))[$8::int + 1:$8::int + $9::int] AS ids FROM (
    SELECT p.id FROM unnest($2::text[]) AS s (status) CROSS JOIN unnest($3::text[]) AS d (dest_type)
    CROSS JOIN LATERAL (
        SELECT payouts.id FROM payouts
        WHERE merchant_id = $1 AND status <> '' AND (status, dest_type, id) < (s.status, d.dest_type, $4::uuid)
            AND (status, dest_type, id) >= (s.status, d.dest_type, $5::uuid)
        ORDER BY merchant_id DESC, status DESC, dest_type DESC, payouts.id DESC LIMIT $6
    ) p ORDER BY p.id DESC LIMIT $7
) found;
