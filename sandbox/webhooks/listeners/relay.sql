-- Record what a listener reports. `$1` is the merchant.

-- name: reported
-- Lock the deliveries of reported attempts. `holds` is whether the report's lease is still the delivery's, and `is_repeated`
-- whether this attempt was recorded before: a lease holds the attempt's number, and the time of its claim and of its signature.
SELECT n.place, k.leased_until = n.lease AS holds, EXISTS (
    SELECT 1 FROM webhook_attempts a
    WHERE a.merchant_id = $1 AND a.delivery_id = n.id AND a.attempt >= n.attempt AND a.at = n.at
        AND a.signed_at IS NOT DISTINCT FROM n.signed_at
) AS is_repeated
FROM json_to_recordset($2::json) AS n (place int, id uuid, lease timestamptz, attempt int, at timestamptz, signed_at bigint)
CROSS JOIN LATERAL (
    SELECT leased_until FROM webhook_deliveries
    WHERE webhook_deliveries.merchant_id = $1 AND webhook_deliveries.id >= n.id AND webhook_deliveries.id <= n.id
    ORDER BY webhook_deliveries.merchant_id, webhook_deliveries.id FOR NO KEY UPDATE
) k;
