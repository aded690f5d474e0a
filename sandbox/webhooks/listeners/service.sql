-- name: by_name
SELECT id::text FROM webhook_endpoints WHERE merchant_id = $1 AND relayed AND description = $2 ORDER BY id LIMIT 1;
