-- name: count_snapshot
UPDATE snapshots SET rows = $3, size = $4, intact_rows = $5 WHERE merchant_id = $1 AND id = $2
RETURNING id, name, rows, size, clock_at, created_at;

-- name: lock_deliveries
-- Locks the deliveries in progress, in the same order as recording their results does. Otherwise the two could deadlock.
SELECT 1 FROM webhook_deliveries WHERE merchant_id = $1 AND leased_until IS NOT NULL ORDER BY id FOR UPDATE;

-- name: reset_state
-- The values are the columns' defaults. The keyword DEFAULT would set null where `worlds` is a view.
UPDATE worlds SET id_sequence = 0, clock_frozen_at = $2, clock_offset = '0', default_scenario = 'success',
    approvals_expire_after = NULL, review_threshold = 100000.00
WHERE merchant_id = $1;

-- name: initial_values
SELECT seed, begins_at, opening_balance FROM merchants WHERE merchant_id = $1;

-- name: snapshot
SELECT name, rows, position, intact_rows, is_intact FROM snapshots WHERE merchant_id = $1 AND id = $2;

-- name: restore_state
-- Does not set the seed: it belongs to the merchant and never changes.
UPDATE worlds w SET id_sequence = r.id_sequence, clock_frozen_at = r.clock_frozen_at, clock_offset = r.clock_offset,
    default_scenario = r.default_scenario, approvals_expire_after = r.approvals_expire_after,
    review_threshold = r.review_threshold
FROM snapshot_rows s CROSS JOIN LATERAL unnest(s.worlds) r
WHERE w.merchant_id = $1 AND s.merchant_id = $1 AND s.snapshot_id = $2 AND s.table_name = 'worlds'
RETURNING w.clock_frozen_at, w.clock_offset;

-- name: may_skip_keys
SELECT current_setting('is_superuser') = 'on';

-- name: mark_none_intact
UPDATE snapshots SET is_intact = false WHERE merchant_id = $1;

-- name: mark_intact
-- A snapshot is intact (`is_intact`) if the world still contains all of its append-only rows. After a restore, later
-- snapshots are not.
UPDATE snapshots s SET is_intact = s.position IS NOT NULL AND (s.id = $2 OR ($3 AND s.is_intact AND s.position <= r.position))
FROM snapshots r WHERE s.merchant_id = $1 AND r.merchant_id = $1 AND r.id = $2;

-- name: release
-- Deliveries that were in progress at the snapshot are due again. They can arrive a second time.
UPDATE webhook_deliveries SET leased_until = NULL WHERE merchant_id = $1 AND leased_until IS NOT NULL;
