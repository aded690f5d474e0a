-- Write what units of work decided: each table with one statement, whichever merchants the rows belong to.
--
-- Each json[] argument holds one JSON array of rows for each unit, in the order of the merchants. It is NULL if no unit
-- has such rows. The caller has held the merchants' locks since the claim, so balances and versions are exact.
--
-- Changed rows are looked up by key and written with ON CONFLICT, which only ever updates. See "Changing many rows" in
-- sandbox/infrastructure/db/statements.py. The merchant_id of a row that is not found is NULL, which raises an error.
CREATE OR REPLACE FUNCTION psp_write(
    p_merchants uuid[],
    p_nows timestamptz[],      -- each unit's now
    p_created json[],          -- payouts
    p_metadata json[],
    p_changed json[],          -- payouts
    p_transfers json[],
    p_balances json[],
    p_users json[],
    p_user_transactions json[],
    p_deliveries json[],
    p_keys json[],
    p_events json[],
    p_bodies text[]            -- the bodies of all units' events; each event's row has the index of its body
) RETURNS void LANGUAGE plpgsql VOLATILE AS $function$
BEGIN
    IF pg_current_xact_id_if_assigned() IS NULL THEN
        -- Locking the merchants assigned an id to the transaction, so this is another one, which does not have their locks.
        RAISE EXCEPTION 'psp_write was called outside the transaction of the claim';
    END IF;
    IF p_created IS NOT NULL THEN
        INSERT INTO payouts (merchant_id, id, merchant_reference, amount, currency, dest_type, bank_code, wallet_code,
            account_number, account_title, status, scenario, failure_code, failure_reason, psp_reference, attempts, metadata,
            user_id, step, due_at, changes, request_id, path, scenario_header, traceparent, created_at, updated_at,
            processed_at)
        SELECT p_merchants[g.unit], n.id, n.merchant_reference, n.amount, n.currency, n.dest_type, n.bank_code, n.wallet_code,
            n.account_number, n.account_title, n.status, n.scenario, n.failure_code, n.failure_reason, n.psp_reference,
            n.attempts, n.metadata, n.user_id, n.step, n.due_at, n.changes, n.request_id, n.path::jsonb, n.scenario_header,
            n.traceparent, p_nows[g.unit], p_nows[g.unit], n.processed_at
        FROM unnest(p_created) WITH ORDINALITY AS g (rows, unit)
        CROSS JOIN LATERAL json_to_recordset(g.rows) AS n (id uuid, merchant_reference text, amount numeric, currency text,
            dest_type text, bank_code text, wallet_code text, account_number text, account_title text, status text,
            scenario text, failure_code text, failure_reason text, psp_reference text, attempts int, metadata jsonb,
            user_id uuid, step int, due_at timestamptz, changes int, request_id text, path text, scenario_header text,
            traceparent text, processed_at timestamptz);
    END IF;
    IF p_metadata IS NOT NULL THEN
        INSERT INTO payout_metadata (merchant_id, pair, payout_id)
        SELECT p_merchants[g.unit], n.pair, n.payout_id
        FROM unnest(p_metadata) WITH ORDINALITY AS g (rows, unit)
        CROSS JOIN LATERAL json_to_recordset(g.rows) AS n (pair uuid, payout_id uuid);
    END IF;
    IF p_changed IS NOT NULL THEN
        INSERT INTO payouts AS t (merchant_id, id, merchant_reference, amount, currency, dest_type, bank_code, wallet_code,
            account_number, metadata, created_at, status, scenario, failure_code, failure_reason, psp_reference, attempts, step,
            due_at, changes, updated_at, processed_at, path, request_id, traceparent)
        SELECT k.merchant_id, k.id, k.merchant_reference, k.amount, k.currency, k.dest_type, k.bank_code, k.wallet_code,
            k.account_number, k.metadata, k.created_at, n.status, n.scenario, n.failure_code, n.failure_reason,
            n.psp_reference, n.attempts, n.step, n.due_at, n.changes, p_nows[g.unit], n.processed_at, n.path::jsonb,
            n.request_id, n.traceparent
        FROM unnest(p_changed) WITH ORDINALITY AS g (rows, unit)
        CROSS JOIN LATERAL json_to_recordset(g.rows) AS n (id uuid, status text, scenario text, failure_code text,
            failure_reason text, psp_reference text, attempts int, step int, due_at timestamptz, changes int,
            processed_at timestamptz, path text, request_id text, traceparent text)
        LEFT JOIN LATERAL (
            SELECT * FROM payouts p WHERE p.merchant_id = p_merchants[g.unit] AND p.id >= n.id AND p.id <= n.id
            ORDER BY p.merchant_id, p.id OFFSET 0
        ) k ON true
        ON CONFLICT (merchant_id, id) DO UPDATE SET status = EXCLUDED.status, scenario = EXCLUDED.scenario,
            failure_code = EXCLUDED.failure_code, failure_reason = EXCLUDED.failure_reason,
            psp_reference = EXCLUDED.psp_reference, attempts = EXCLUDED.attempts, step = EXCLUDED.step,
            due_at = EXCLUDED.due_at, changes = EXCLUDED.changes, updated_at = EXCLUDED.updated_at,
            processed_at = EXCLUDED.processed_at, path = EXCLUDED.path, request_id = EXCLUDED.request_id,
            traceparent = EXCLUDED.traceparent;
    END IF;
    IF p_transfers IS NOT NULL THEN
        INSERT INTO transfers (merchant_id, id, debit_account, credit_account, amount, debit_balance_after,
            credit_balance_after, reason, payout_id, description, created_at)
        SELECT p_merchants[g.unit], n.id, n.debit_account, n.credit_account, n.amount, n.debit_after, n.credit_after, n.reason,
            n.payout_id, n.description, p_nows[g.unit]
        FROM unnest(p_transfers) WITH ORDINALITY AS g (rows, unit)
        CROSS JOIN LATERAL json_to_recordset(g.rows) AS n (id uuid, debit_account text, credit_account text, amount numeric,
            debit_after numeric, credit_after numeric, reason text, payout_id uuid, description text);
        -- Each account is written once, with its last balance.
        INSERT INTO accounts AS t (merchant_id, account, balance, version, updated_at)
        SELECT k.merchant_id, k.account, n.balance, k.version + n.changes, p_nows[g.unit]
        FROM unnest(p_balances) WITH ORDINALITY AS g (rows, unit)
        CROSS JOIN LATERAL json_to_recordset(g.rows) AS n (account text, balance numeric, changes bigint)
        LEFT JOIN LATERAL (
            SELECT * FROM accounts a
            WHERE a.merchant_id = p_merchants[g.unit] AND a.account >= n.account AND a.account <= n.account
            ORDER BY a.merchant_id, a.account OFFSET 0
        ) k ON true
        ON CONFLICT (merchant_id, account) DO UPDATE SET balance = EXCLUDED.balance, version = EXCLUDED.version,
            updated_at = EXCLUDED.updated_at;
    END IF;
    IF p_users IS NOT NULL THEN
        INSERT INTO users AS t (merchant_id, id, name, vendor_user_id, created_at, earned, spent, credited, advances, finals,
            requested, approved, paid, version, updated_at)
        SELECT k.merchant_id, k.id, k.name, k.vendor_user_id, k.created_at, n.earned, n.spent, n.credited, n.advances,
            n.finals, n.requested, n.approved, n.paid, n.version, p_nows[g.unit]
        FROM unnest(p_users) WITH ORDINALITY AS g (rows, unit)
        CROSS JOIN LATERAL json_to_recordset(g.rows) AS n (id uuid, earned numeric, spent numeric, credited numeric,
            advances numeric, finals numeric, requested numeric, approved numeric, paid numeric, version bigint)
        LEFT JOIN LATERAL (
            SELECT * FROM users u WHERE u.merchant_id = p_merchants[g.unit] AND u.id >= n.id AND u.id <= n.id
            ORDER BY u.merchant_id, u.id OFFSET 0
        ) k ON true
        ON CONFLICT (merchant_id, id) DO UPDATE SET earned = EXCLUDED.earned, spent = EXCLUDED.spent,
            credited = EXCLUDED.credited, advances = EXCLUDED.advances, finals = EXCLUDED.finals,
            requested = EXCLUDED.requested, approved = EXCLUDED.approved, paid = EXCLUDED.paid, version = EXCLUDED.version,
            updated_at = EXCLUDED.updated_at;
    END IF;
    IF p_user_transactions IS NOT NULL THEN
        INSERT INTO user_transactions (merchant_id, id, user_id, type, amount, reference, transfer_id, payout_id, created_at)
        SELECT p_merchants[g.unit], n.id, n.user_id, n.type, n.amount, n.reference, n.transfer_id, n.payout_id, p_nows[g.unit]
        FROM unnest(p_user_transactions) WITH ORDINALITY AS g (rows, unit)
        CROSS JOIN LATERAL json_to_recordset(g.rows) AS n (id uuid, user_id uuid, type text, amount numeric, reference text,
            transfer_id uuid, payout_id uuid);
    END IF;
    IF p_events IS NOT NULL THEN
        INSERT INTO events (merchant_id, id, type, body, payout_id, change, from_status, to_status, cause, scenario, step,
            transfer_id, request_id, actor, traceparent, created_at)
        SELECT p_merchants[g.unit], n.id, n.type, p_bodies[n.body], n.payout_id, n.change, n.from_status, n.to_status, n.cause,
            n.scenario, n.step, n.transfer_id, n.request_id, n.actor, n.traceparent, p_nows[g.unit]
        FROM unnest(p_events) WITH ORDINALITY AS g (rows, unit)
        CROSS JOIN LATERAL json_to_recordset(g.rows) AS n (id uuid, type text, body int, payout_id uuid, change int,
            from_status text, to_status text, cause text, scenario text, step int, transfer_id uuid, request_id text,
            actor uuid, traceparent text);
    END IF;
    IF p_deliveries IS NOT NULL THEN
        INSERT INTO webhook_deliveries (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, next_attempt_at,
            created_at, updated_at, leased_until)
        SELECT p_merchants[g.unit], n.id, n.event_id, n.endpoint_id, CASE WHEN n.enabled THEN 'PENDING' ELSE 'PAUSED' END,
            0, 0, CASE WHEN n.enabled THEN p_nows[g.unit] END, p_nows[g.unit], p_nows[g.unit], n.leased_until
        FROM unnest(p_deliveries) WITH ORDINALITY AS g (rows, unit)
        CROSS JOIN LATERAL json_to_recordset(g.rows) AS n (id uuid, event_id uuid, endpoint_id uuid, enabled boolean,
            leased_until timestamptz);
    END IF;
    IF p_keys IS NOT NULL THEN
        -- An expired key stays in the unique index until it is purged, so a new request takes over its row.
        INSERT INTO idempotency_keys (merchant_id, key, fingerprint, status, body, location, expires_at)
        SELECT p_merchants[g.unit], n.key, decode(n.fingerprint, 'base64'), n.status, decode(n.body, 'base64'), n.location,
            coalesce(n.expires_at, p_nows[g.unit] + interval '24 hours')
        FROM unnest(p_keys) WITH ORDINALITY AS g (rows, unit)
        CROSS JOIN LATERAL json_to_recordset(g.rows) AS n (key text, fingerprint text, status int, body text, location text,
            expires_at timestamptz)
        ON CONFLICT (merchant_id, key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, status = EXCLUDED.status,
            body = EXCLUDED.body, location = EXCLUDED.location, expires_at = EXCLUDED.expires_at;
    END IF;
END
$function$;
