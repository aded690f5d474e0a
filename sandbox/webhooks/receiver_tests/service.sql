-- name: delete_old
DELETE FROM receiver_tests WHERE merchant_id = $1 AND id <= (
    SELECT id FROM receiver_tests WHERE merchant_id = $1 AND id >= '00000000-0000-0000-0000-000000000000'
    ORDER BY merchant_id DESC, id DESC OFFSET $2 LIMIT 1
);

-- name: list
-- Of the findings, which are long, only the outcomes are read.
SELECT id::text AS id, url, probe_url, signing, is_finished, interrupted, created_at, heartbeat_at,
    jsonb_path_query_array(findings, '$[*].outcome')::text AS outcomes
FROM receiver_tests WHERE merchant_id = $1 AND id < $2 AND id >= $3 ORDER BY merchant_id DESC, id DESC LIMIT $4;
