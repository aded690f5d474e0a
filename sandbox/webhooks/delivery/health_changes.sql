-- part: failing_since
CASE WHEN n.succeeded THEN n.failed_at ELSE least(k.failing_since, n.failed_at) END

-- part: reason
CASE WHEN k.status = 'ENABLED' THEN CASE
    WHEN n.gone THEN 'The endpoint responded with 410 Gone.'
    WHEN NOT n.succeeded AND k.failing_since <= n.last_failed_at - $4::interval
    THEN 'Every attempt since ' || to_char(k.failing_since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
        || ' failed, for at least {days} days.' END END

-- name: change
INSERT INTO webhook_endpoints AS t (merchant_id, id, url, event_types, signing, retry_profile, ordered, description, secret,
    created_at, failing_since, status, disabled_reason, status_history, updated_at)
SELECT $1, k.id, k.url, k.event_types, k.signing, k.retry_profile, k.ordered, k.description, k.secret, k.created_at,
    {failing_since}, CASE WHEN {reason} IS NULL THEN k.status ELSE 'DISABLED' END, coalesce({reason}, k.disabled_reason),
    CASE WHEN {reason} IS NULL THEN k.status_history ELSE (
            SELECT jsonb_agg(entry ORDER BY place) FROM (
                SELECT entry, place FROM jsonb_array_elements(coalesce(k.status_history, '[]') || jsonb_build_array(
                    jsonb_build_object('at', n.at, 'status', 'DISABLED', 'reason', {reason})
                )) WITH ORDINALITY AS h (entry, place) ORDER BY place DESC LIMIT {max_history}
            ) newest) END, CASE WHEN {reason} IS NULL THEN k.updated_at ELSE $3 END
FROM json_to_recordset($2::json) AS n (id uuid, succeeded boolean, failed_at timestamptz, last_failed_at timestamptz,
    gone boolean, at text) CROSS JOIN LATERAL (
    SELECT * FROM webhook_endpoints WHERE webhook_endpoints.merchant_id = $1 AND webhook_endpoints.id >= n.id
        AND webhook_endpoints.id <= n.id ORDER BY webhook_endpoints.merchant_id, webhook_endpoints.id FOR NO KEY UPDATE
) k WHERE {reason} IS NOT NULL OR k.failing_since IS DISTINCT FROM {failing_since}
ON CONFLICT (merchant_id, id) DO UPDATE SET failing_since = EXCLUDED.failing_since, status = EXCLUDED.status,
    disabled_reason = EXCLUDED.disabled_reason, status_history = EXCLUDED.status_history, updated_at = EXCLUDED.updated_at;
