-- One payout as the sandbox writes it, inside the database: the same as statements.sql, without the round trips.
CREATE OR REPLACE FUNCTION psp_bench_create(
    merchant uuid, run text, event_body text, response_body text, request text
) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    payout uuid;
    transfer uuid;
    event uuid;
    moment timestamptz;
    reference text;
    available numeric;
    locked numeric;
    endpoints bigint;
    known bigint;
    taken bigint;
BEGIN
    UPDATE worlds SET id_sequence = id_sequence + 512 WHERE merchant_id = merchant
    RETURNING uuidv7(), uuidv7(), uuidv7(), date_trunc('milliseconds', clock_timestamp()),
        run || '-' || lpad((id_sequence / 512)::text, 11, '0')
    INTO payout, transfer, event, moment, reference; -- after the wait for the lock, so that ids ascend in commit order
    SELECT
        (SELECT a.balance FROM accounts a WHERE a.merchant_id = merchant AND a.account = 'AVAILABLE') - 1.00,
        (SELECT a.balance FROM accounts a WHERE a.merchant_id = merchant AND a.account = 'LOCKED') + 1.00,
        (SELECT count(*) FROM webhook_endpoints w WHERE w.merchant_id = merchant),
        (SELECT count(*) FROM idempotency_keys k WHERE k.merchant_id = merchant AND k.key = 'bench-payout-key' || reference
            AND k.expires_at > moment),
        (SELECT count(*) FROM payouts p WHERE p.merchant_id = merchant AND p.merchant_reference = reference)
    INTO available, locked, endpoints, known, taken;
    INSERT INTO payouts (merchant_id, id, merchant_reference, amount, currency, dest_type, bank_code, account_number,
        account_title, status, scenario, attempts, metadata, step, due_at, changes, request_id, created_at, updated_at)
    VALUES (merchant, payout, reference, 1.00, 'PKR', 'BANK', 'HBL', '12345678900001',
        'AYESHA KHAN', 'PENDING', 'success', 0, '{}', 0, '2999-01-01Z', 1, request, moment, moment);
    INSERT INTO transfers (merchant_id, id, debit_account, credit_account, amount, debit_balance_after, credit_balance_after,
        reason, payout_id, description, created_at)
    VALUES (merchant, transfer, 'AVAILABLE', 'LOCKED', 1.00, available, locked,
        'PAYOUT_LOCK', payout, reference, moment);
    UPDATE accounts a SET balance = CASE a.account WHEN 'AVAILABLE' THEN available ELSE locked END,
        version = a.version + 1, updated_at = moment
    WHERE a.merchant_id = merchant AND a.account IN ('AVAILABLE', 'LOCKED');
    INSERT INTO events (merchant_id, id, type, body, payout_id, change, from_status, to_status, cause, scenario, step,
        transfer_id, request_id, created_at)
    VALUES (merchant, event, 'payout.created', event_body, payout, 0, NULL, 'PENDING', 'api', 'success', NULL,
        transfer, request, moment);
    INSERT INTO idempotency_keys AS k (merchant_id, key, fingerprint, status, body, location, expires_at)
    VALUES (merchant, 'bench-payout-key' || reference, decode(repeat('5a', 32), 'hex'), 201,
        convert_to(response_body, 'UTF8'), '/api/v1/payouts/' || payout, moment + interval '24 hours')
    ON CONFLICT (merchant_id, key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, status = EXCLUDED.status,
        body = EXCLUDED.body, location = EXCLUDED.location, expires_at = EXCLUDED.expires_at;
    RETURN payout;
END $$
