-- One payout as the sandbox writes it (claim.sql, write.sql and ledger.sql in sandbox/unit_of_work), statement by statement.
BEGIN;
UPDATE worlds SET id_sequence = id_sequence + 512 WHERE merchant_id = :merchant::uuid
RETURNING uuidv7() AS payout_id, uuidv7() AS transfer_id, uuidv7() AS event_id,
    date_trunc('milliseconds', clock_timestamp()) AS at,
    :run::text || '-' || lpad((id_sequence / 512)::text, 11, '0') AS reference \gset
SELECT
    (SELECT balance FROM accounts WHERE merchant_id = :merchant::uuid AND account = 'AVAILABLE') - 1.00 AS available,
    (SELECT balance FROM accounts WHERE merchant_id = :merchant::uuid AND account = 'LOCKED') + 1.00 AS locked,
    (SELECT count(*) FROM webhook_endpoints WHERE merchant_id = :merchant::uuid) AS endpoints,
    (SELECT count(*) FROM idempotency_keys WHERE merchant_id = :merchant::uuid AND key = 'bench-payout-key' || :reference::text
        AND expires_at > :at::timestamptz) AS known,
    (SELECT count(*) FROM payouts WHERE merchant_id = :merchant::uuid AND merchant_reference = :reference::text) AS taken \gset
INSERT INTO payouts (merchant_id, id, merchant_reference, amount, currency, dest_type, bank_code, account_number, account_title,
    status, scenario, attempts, metadata, step, due_at, changes, request_id, created_at, updated_at)
VALUES (:merchant::uuid, :payout_id::uuid, :reference::text, 1.00, 'PKR', 'BANK', 'HBL', '12345678900001', 'AYESHA KHAN',
    'PENDING', 'success', 0, '{}', 0, '2999-01-01Z', 1, :request_id::text, :at::timestamptz, :at::timestamptz);
INSERT INTO transfers (merchant_id, id, debit_account, credit_account, amount, debit_balance_after, credit_balance_after,
    reason, payout_id, description, created_at)
VALUES (:merchant::uuid, :transfer_id::uuid, 'AVAILABLE', 'LOCKED', 1.00, :available::numeric, :locked::numeric,
    'PAYOUT_LOCK', :payout_id::uuid, :reference::text, :at::timestamptz);
UPDATE accounts SET balance = CASE account WHEN 'AVAILABLE' THEN :available::numeric ELSE :locked::numeric END,
    version = version + 1, updated_at = :at::timestamptz
WHERE merchant_id = :merchant::uuid AND account IN ('AVAILABLE', 'LOCKED');
INSERT INTO events (merchant_id, id, type, body, payout_id, change, from_status, to_status, cause, scenario, step, transfer_id,
    request_id, created_at)
VALUES (:merchant::uuid, :event_id::uuid, 'payout.created', :event_body::text, :payout_id::uuid, 0, NULL, 'PENDING', 'api',
    'success', NULL, :transfer_id::uuid, :request_id::text, :at::timestamptz);
INSERT INTO idempotency_keys AS k (merchant_id, key, fingerprint, status, body, location, expires_at)
VALUES (:merchant::uuid, 'bench-payout-key' || :reference::text, decode(repeat('5a', 32), 'hex'), 201,
    convert_to(:response_body::text, 'UTF8'), '/api/v1/payouts/' || :payout_id::text, :at::timestamptz + interval '24 hours')
ON CONFLICT (merchant_id, key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, status = EXCLUDED.status,
    body = EXCLUDED.body, location = EXCLUDED.location, expires_at = EXCLUDED.expires_at;
COMMIT;
