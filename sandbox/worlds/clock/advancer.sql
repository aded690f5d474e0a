-- name: next_due
-- The earliest due time of each kind of work that depends on the merchant's clock. To add a kind of work, add a column here and
-- run the work in `_run_instant`, and list it in `due.py`. A delivery that is being sent is still due: the clock waits for it.
SELECT
    (SELECT due_at FROM payouts WHERE merchant_id = $1 AND due_at IS NOT NULL ORDER BY merchant_id, due_at LIMIT 1) AS payouts,
    (SELECT due_at FROM sales WHERE merchant_id = $1 AND due_at IS NOT NULL ORDER BY merchant_id, due_at LIMIT 1) AS sales,
    (SELECT min(l.due) FROM webhook_endpoints e CROSS JOIN LATERAL (
        SELECT d.next_attempt_at AS due FROM webhook_deliveries d
        WHERE d.merchant_id = $1 AND d.endpoint_id = e.id AND d.next_attempt_at IS NOT NULL
        ORDER BY d.merchant_id, d.endpoint_id, d.next_attempt_at LIMIT 1
    ) l WHERE e.merchant_id = $1 AND {sent_by_workers}) AS deliveries;

-- name: set
UPDATE worlds SET clock_frozen_at = $2, clock_offset = $3 WHERE merchant_id = $1;
