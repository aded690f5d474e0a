-- A batch of settled payouts, each with the seven rows that the API and the worker would store.
-- The values come from psp_bench_rows, a temporary table. $1 is the merchant, $2 the time.
-- The caller splits this file at the semicolons and runs the statements one by one.

INSERT INTO payouts (merchant_id, id, merchant_reference, amount, currency, dest_type, bank_code, account_number, account_title,
    status, scenario, psp_reference, attempts, metadata, step, due_at, changes, request_id, created_at, updated_at, processed_at)
SELECT $1::uuid, payout_id, reference, 1.00, 'PKR', 'BANK', 'HBL', '12345678900001', 'AYESHA KHAN', 'SUCCESS', 'success',
    psp_reference, 1, '{}', 2, NULL, 3, request_id, $2, $2, $2
FROM psp_bench_rows ORDER BY number;

INSERT INTO transfers (merchant_id, id, debit_account, credit_account, amount, debit_balance_after, credit_balance_after, reason,
    payout_id, description, created_at)
SELECT $1::uuid, t.id, t.debit_account, t.credit_account, 1.00, t.debit_after, t.credit_after, t.reason, r.payout_id, r.reference, $2
FROM psp_bench_rows r CROSS JOIN LATERAL (VALUES
    (r.lock_id, 'AVAILABLE', 'LOCKED', r.available_after, r.locked_between, 'PAYOUT_LOCK'),
    (r.settle_id, 'LOCKED', 'SETTLEMENT', r.locked_between - 1.00, r.settled_after, 'PAYOUT_SETTLE')
) t (id, debit_account, credit_account, debit_after, credit_after, reason)
ORDER BY r.number, t.id;

INSERT INTO events (merchant_id, id, type, body, payout_id, change, from_status, to_status, cause, scenario, step, transfer_id,
    request_id, created_at)
SELECT $1::uuid, e.id, e.type, format(
        '{"id":"%s","type":"%s","timestamp":"%s","livemode":false,"previous_status":%s,'
        '"data":{"id":"%s","merchant_reference":"%s","amount":"1.00","currency":"PKR",'
        '"dest_type":"BANK","bank_code":"HBL","wallet_code":null,"account_number":"12345678900001",'
        '"account_title":"AYESHA KHAN","status":"%s","scenario":"success","failure_code":null,"failure_reason":null,'
        '"psp_reference":%s,"attempts":%s,"version":%s,"metadata":{},"user_id":null,"created_at":"%s","updated_at":"%s",'
        '"processed_at":%s}}',
        e.id, e.type, r.written, coalesce('"' || e.from_status || '"', 'null'), r.payout_id, r.reference, e.to_status,
        CASE WHEN e.change = 2 THEN '"' || r.psp_reference || '"' ELSE 'null' END, least(e.change, 1), e.change + 1, r.written,
        r.written,
        CASE WHEN e.change = 2 THEN '"' || r.written || '"' ELSE 'null' END
    ), r.payout_id, e.change, e.from_status, e.to_status, e.cause, 'success', e.step, e.transfer_id, r.request_id, $2
FROM psp_bench_rows r CROSS JOIN LATERAL (VALUES
    (r.created_event, 'payout.created', 0, NULL, 'PENDING', 'api', NULL::int, r.lock_id),
    (r.processing_event, 'payout.processing', 1, 'PENDING', 'PROCESSING', 'worker', 0, NULL),
    (r.succeeded_event, 'payout.succeeded', 2, 'PROCESSING', 'SUCCESS', 'worker', 1, r.settle_id)
) e (id, type, change, from_status, to_status, cause, step, transfer_id)
ORDER BY r.number, e.change;

INSERT INTO idempotency_keys (merchant_id, key, fingerprint, status, body, location, expires_at)
SELECT $1::uuid, 'bench-payout-key' || reference, sha256(reference::bytea), 201, convert_to(format(
        '{"id":"%s","merchant_reference":"%s","amount":"1.00","currency":"PKR","dest_type":"BANK","bank_code":"HBL",'
        '"wallet_code":null,"account_number":"12345678900001","account_title":"AYESHA KHAN","status":"PENDING",'
        '"scenario":"success","failure_code":null,"failure_reason":null,"psp_reference":null,"attempts":0,"version":1,"metadata":{},'
        '"user_id":null,"created_at":"%s","updated_at":"%s","processed_at":null}',
        payout_id, reference, written, written), 'UTF8'), '/api/v1/payouts/' || payout_id, $2::timestamptz + interval '24 hours'
FROM psp_bench_rows ORDER BY number;

UPDATE accounts a SET balance = a.balance + n.amount, version = a.version + n.changes, updated_at = $2
FROM (
    SELECT account, (sign * count(*))::numeric AS amount, changes * count(*) AS changes
    FROM psp_bench_rows CROSS JOIN (VALUES ('AVAILABLE', -1, 1), ('LOCKED', 0, 2), ('SETTLEMENT', 1, 1)) s (account, sign, changes)
    GROUP BY account, sign, changes
) n WHERE a.merchant_id = $1 AND a.account = n.account
