-- part: shown
id::text AS id, url, probe_url, signing, is_finished, interrupted, created_at, heartbeat_at

-- name: get
SELECT {shown}, findings::text AS findings FROM receiver_tests
WHERE receiver_tests.merchant_id = $1 AND receiver_tests.id >= $2 AND receiver_tests.id <= $2
ORDER BY receiver_tests.merchant_id, receiver_tests.id;

-- name: insert
INSERT INTO receiver_tests (merchant_id, id, url, probe_url, signing, is_finished, interrupted, findings, created_at,
    heartbeat_at)
VALUES ($1, $2, $3, $4, $5, false, false, '[]', $6, $6) RETURNING {shown}, findings::text AS findings;

-- name: update
UPDATE receiver_tests SET findings = $3, is_finished = $4, interrupted = $5, heartbeat_at = $6
WHERE merchant_id = $1 AND id = $2 RETURNING true;

-- name: delete_old
DELETE FROM receiver_tests WHERE merchant_id = $1 AND id <= (
    SELECT id FROM receiver_tests WHERE merchant_id = $1 AND id >= '00000000-0000-0000-0000-000000000000'
    ORDER BY merchant_id DESC, id DESC OFFSET $2 LIMIT 1
);

-- name: list
-- Of the findings, which are long, only the outcomes are read.
SELECT {shown},
    jsonb_path_query_array(findings, '$[*].outcome')::text AS outcomes
FROM receiver_tests WHERE merchant_id = $1 AND id < $2 AND id >= $3 ORDER BY merchant_id DESC, id DESC LIMIT $4;
