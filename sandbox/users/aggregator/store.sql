-- name: any_rows_or_vendors
-- A cheap check before the two statements below: each shard of a distributed database is asked every second.
SELECT EXISTS (SELECT 1 FROM vendor_cursors WHERE url IS NOT NULL) OR EXISTS (SELECT 1 FROM user_transactions);

-- name: due_http
-- DUE_HTTP: merchants whose vendor is due. DUE_OWN: merchants without a vendor that have rows newer than the last one read. The
-- latter skips from one merchant's newest row to the next one's, so that merchants without rows cost nothing.
SELECT merchant_id::text FROM vendor_cursors WHERE url IS NOT NULL AND next_poll_at <= $1 ORDER BY next_poll_at LIMIT $2;

-- name: due_own
WITH RECURSIVE t AS (
    (SELECT merchant_id, id FROM user_transactions ORDER BY merchant_id DESC, id DESC LIMIT 1)
    UNION ALL
    SELECT n.* FROM t CROSS JOIN LATERAL (
        SELECT merchant_id, id FROM user_transactions WHERE merchant_id < t.merchant_id
        ORDER BY merchant_id DESC, id DESC LIMIT 1
    ) n
)
SELECT t.merchant_id::text FROM t LEFT JOIN LATERAL (
    SELECT url, next_poll_at, last_id FROM vendor_cursors WHERE merchant_id = t.merchant_id OFFSET 0
) c ON true
WHERE c.url IS NULL AND (c.next_poll_at IS NULL OR c.next_poll_at <= $1)
    AND t.id > coalesce(c.last_id, '00000000-0000-0000-0000-000000000000')
LIMIT $2;

-- name: lock
SELECT url, headers, since, page, seen AS newest_read, walk_began AS sync_started_at, failures, next_poll_at,
    fetch_id::text AS fetch_id
FROM vendor_cursors WHERE merchant_id = $1 FOR UPDATE;

-- name: merchant
SELECT 1 FROM worlds WHERE merchant_id = $1 FOR NO KEY UPDATE;

-- name: create_cursor
INSERT INTO vendor_cursors (merchant_id, page, failures, next_poll_at, updated_at) VALUES ($1, 1, 0, $2, $2)
ON CONFLICT (merchant_id) DO NOTHING;

-- name: recent
SELECT ended_by FROM vendor_fetches WHERE merchant_id = $1 AND id >= $2 AND ended_by > $3;

-- name: postpone
UPDATE vendor_cursors SET next_poll_at = $2 WHERE merchant_id = $1;

-- name: mark_abandoned
UPDATE vendor_fetches SET outcome = 'FAILED', error = 'the worker that made the call did not finish it'
WHERE merchant_id = $1 AND id = $2 AND outcome = 'RUNNING';

-- name: begin
INSERT INTO vendor_fetches (merchant_id, id, url, page, at, ended_by, outcome) VALUES ($1, $2, $3, $4, $5, $6, 'RUNNING');

-- name: leased
UPDATE vendor_cursors SET next_poll_at = $2, fetch_id = $3, updated_at = $4 WHERE merchant_id = $1;

-- name: move
UPDATE vendor_cursors SET since = $2, page = $3, seen = $4, walk_began = $5, failures = $6, next_poll_at = $7,
    last_id = greatest(last_id, $8::uuid), fetch_id = NULL, updated_at = $9
WHERE merchant_id = $1;

-- name: end
UPDATE vendor_fetches SET outcome = $3, status = $4, rows = $5, new_rows = $6, dead_letters = $7, duration_ms = $8, error = $9,
    ended_by = $10
WHERE merchant_id = $1 AND id = $2;

-- name: delete_old_fetches
DELETE FROM vendor_fetches WHERE merchant_id = $1 AND id < $2;

-- name: add_rows
-- A row that already exists is not added to the balances again, so rereading all or part of a page changes nothing.
WITH added AS (
    INSERT INTO vendor_transactions (merchant_id, vendor_id, user_id, type, amount, created_at)
    SELECT $1, r.* FROM unnest($2::text[], $3::text[], $4::text[], $5::numeric[], $6::timestamptz[]) AS r
    ON CONFLICT (merchant_id, vendor_id) DO NOTHING RETURNING user_id, type, amount
), sums AS (
    SELECT user_id, count(*) AS rows,
        coalesce(sum(amount) FILTER (WHERE type = 'earned'), 0) AS earned,
        coalesce(sum(amount) FILTER (WHERE type = 'spent'), 0) AS spent,
        coalesce(sum(amount) FILTER (WHERE type = 'payout'), 0) AS payout,
        coalesce(sum(amount) FILTER (WHERE type = 'paid_out'), 0) AS paid_out
    FROM added GROUP BY user_id
), written AS (
    INSERT INTO vendor_balances AS b (merchant_id, user_id, id, earned, spent, payout, paid_out, updated_at)
    SELECT $1, s.user_id, n.id, s.earned, s.spent, s.payout, s.paid_out, $9
    FROM sums s JOIN unnest($7::text[], $8::uuid[]) AS n (user_id, id) ON n.user_id = s.user_id
    ON CONFLICT (merchant_id, user_id) DO UPDATE SET earned = b.earned + EXCLUDED.earned, spent = b.spent + EXCLUDED.spent,
        payout = b.payout + EXCLUDED.payout, paid_out = b.paid_out + EXCLUDED.paid_out, updated_at = EXCLUDED.updated_at
)
SELECT coalesce(sum(rows), 0)::int FROM sums;

-- name: count_dead
SELECT (SELECT count(DISTINCT digest) FROM unnest($2::bytea[]) AS d (digest) WHERE NOT EXISTS (
    SELECT 1 FROM vendor_dead_letters l WHERE l.merchant_id = $1 AND l.digest = d.digest
)) AS new, (SELECT count(*) FROM vendor_dead_letters WHERE merchant_id = $1) AS kept;

-- name: insert_dead_letters
INSERT INTO vendor_dead_letters (merchant_id, id, digest, raw, reason, created_at)
SELECT $1, d.*, $2 FROM unnest($3::uuid[], $4::bytea[], $5::text[], $6::text[]) AS d
ON CONFLICT (merchant_id, digest) DO NOTHING;
