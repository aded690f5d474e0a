-- name: list
SELECT id, name, created_at, clock_at, rows, size FROM snapshots
WHERE merchant_id = $1 AND id < $2 AND id >= $3 ORDER BY merchant_id DESC, snapshots.id DESC LIMIT $4;

-- name: get
SELECT id, name, created_at, clock_at, rows, size FROM snapshots
WHERE snapshots.merchant_id = $1 AND snapshots.id >= $2 AND snapshots.id <= $2 ORDER BY snapshots.merchant_id, snapshots.id;

-- name: count
SELECT count(*) FROM snapshots WHERE merchant_id = $1;

-- name: delete
DELETE FROM snapshots WHERE merchant_id = $1 AND id = $2 RETURNING true;
