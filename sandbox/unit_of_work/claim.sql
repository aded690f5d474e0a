-- Lock a merchant and read what its unit of work needs. One statement calls it for each of a batch's merchants.
--
-- Each statement here has its own snapshot, taken when it begins (READ COMMITTED, and the function is VOLATILE). So what
-- is read after the lock includes everything that the lock's previous holder committed. A single statement that locks and
-- reads would miss it: its snapshot was taken before the wait.
--
-- Rows are looked up one key at a time: LATERAL, with OFFSET 0 so that the planner does not turn the look-up into a join.
-- sandbox/infrastructure/db/statements.py explains why the key is a range with an ORDER BY.
CREATE OR REPLACE FUNCTION psp_claim(
    p_merchant uuid,
    p_ids bigint,              -- how many ids to reserve
    p_wait boolean,            -- wait for a merchant that is locked elsewhere; else return no row for it
    p_now timestamptz,         -- the host's time
    p_needs json,              -- arrays of `keys`, `references`, `psp_references`, `payouts` and `users` to look up; each may be missing
    p_due int                  -- maximum number of due payouts to read; lowered if the merchant has many endpoints
) RETURNS TABLE (
    merchant_id text, counter bigint, seed bigint, clock_frozen_at timestamptz, clock_offset interval, default_scenario text,
    approvals_expire_after interval, review_threshold numeric, balances numeric[], balance_version bigint,
    endpoint_rows text, rule_rows text, key_rows text, existing_references text[], psp_reference_rows text, payout_rows text, due_rows text,
    due_limit int, user_rows text
) LANGUAGE plpgsql VOLATILE AS $function$
#variable_conflict use_column
DECLARE
    v_world record;
    v_endpoint_count int;
    v_users uuid[];
BEGIN
    -- The merchant's lock. Every transaction locks this row before the merchant's other rows, and locks several merchants in
    -- id order, so transactions cannot deadlock.
    IF p_wait THEN
        SELECT w.* INTO v_world FROM worlds w WHERE w.merchant_id = p_merchant FOR NO KEY UPDATE;
    ELSE
        SELECT w.* INTO v_world FROM worlds w WHERE w.merchant_id = p_merchant FOR NO KEY UPDATE SKIP LOCKED;
    END IF;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    merchant_id := v_world.merchant_id;
    counter := v_world.id_sequence;
    seed := v_world.seed;
    clock_frozen_at := v_world.clock_frozen_at;
    clock_offset := v_world.clock_offset;
    default_scenario := v_world.default_scenario;
    approvals_expire_after := v_world.approvals_expire_after;
    review_threshold := v_world.review_threshold;

    SELECT array_agg(a.balance ORDER BY n.place),
        sum(a.version) FILTER (WHERE n.account IN ('AVAILABLE', 'LOCKED'))::bigint
    INTO balances, balance_version
    FROM unnest(ARRAY['AVAILABLE', 'FUNDING', 'LOCKED', 'SETTLEMENT', 'USER_FUNDS']) WITH ORDINALITY AS n (account, place)
    CROSS JOIN LATERAL (
        SELECT a.balance, a.version FROM accounts a
        WHERE a.merchant_id = p_merchant AND a.account >= n.account AND a.account <= n.account
        ORDER BY a.merchant_id, a.account OFFSET 0
    ) a;

    SELECT json_agg(json_build_array(e.id, e.event_types, e.status, e.filters::text,
            e.ordered OR e.rate_limit IS NOT NULL OR e.max_in_flight IS NOT NULL OR coalesce(e.relayed, false)
        ) ORDER BY e.id)::text, count(*)
    INTO endpoint_rows, v_endpoint_count
    FROM webhook_endpoints e WHERE e.merchant_id = p_merchant;

    SELECT json_agg(json_build_array(r.id, r.name, r.match::text, r.steps::text) ORDER BY r.position)::text INTO rule_rows
    FROM scenario_rules r WHERE r.merchant_id = p_merchant;

    IF p_needs -> 'keys' IS NOT NULL THEN
        SELECT json_agg(json_build_array(
            k.key, encode(k.fingerprint, 'base64'), k.status, encode(k.body, 'base64'), k.location
        ))::text INTO key_rows
        FROM json_array_elements_text(p_needs -> 'keys') AS n (key)
        CROSS JOIN LATERAL (
            SELECT * FROM idempotency_keys i
            WHERE i.merchant_id = p_merchant AND i.key >= n.key AND i.key <= n.key
            ORDER BY i.merchant_id, i.key OFFSET 0
        ) k
        WHERE k.expires_at > coalesce(clock_frozen_at, p_now + clock_offset);
    END IF;

    IF p_needs -> 'references' IS NOT NULL THEN
        SELECT array_agg(p.merchant_reference) INTO existing_references
        FROM json_array_elements_text(p_needs -> 'references') AS n (reference)
        CROSS JOIN LATERAL (
            SELECT p.merchant_reference FROM payouts p
            WHERE p.merchant_id = p_merchant AND p.merchant_reference >= n.reference AND p.merchant_reference <= n.reference
            ORDER BY p.merchant_id, p.merchant_reference OFFSET 0
        ) p;
    END IF;

    IF p_needs -> 'psp_references' IS NOT NULL THEN
        SELECT json_agg(json_build_array(n.reference, p.id))::text INTO psp_reference_rows
        FROM json_array_elements_text(p_needs -> 'psp_references') AS n (reference)
        CROSS JOIN LATERAL (
            SELECT p.id FROM payouts p WHERE p.psp_reference = n.reference AND p.merchant_id = p_merchant LIMIT 2
        ) p;
    END IF;

    IF p_needs -> 'users' IS NOT NULL THEN
        v_users := ARRAY(SELECT n.id::uuid FROM json_array_elements_text(p_needs -> 'users') AS n (id));
    END IF;
    IF p_needs -> 'payouts' IS NOT NULL THEN
        SELECT json_agg(p)::text, v_users || array_agg(p.user_id) FILTER (WHERE p.user_id IS NOT NULL) INTO payout_rows, v_users
        FROM json_array_elements_text(p_needs -> 'payouts') AS n (id)
        CROSS JOIN LATERAL (
            SELECT p.* FROM payouts p WHERE p.merchant_id = p_merchant AND p.id >= n.id::uuid AND p.id <= n.id::uuid
            ORDER BY p.merchant_id, p.id OFFSET 0
        ) p;
    END IF;
    IF p_due > 0 THEN
        -- Each change causes a delivery for every endpoint. If there are many endpoints, read fewer payouts, so that the
        -- transaction stays short.
        due_limit := greatest(least(16, p_due), p_due / greatest(1, v_endpoint_count));
        SELECT json_agg(p)::text, v_users || array_agg(p.user_id) FILTER (WHERE p.user_id IS NOT NULL) INTO due_rows, v_users
        FROM (
            SELECT p.* FROM payouts p
            WHERE p.merchant_id = p_merchant AND p.due_at <= coalesce(clock_frozen_at, p_now + clock_offset)
            ORDER BY p.merchant_id, p.due_at, p.id LIMIT due_limit
        ) p;
    END IF;
    IF cardinality(v_users) > 0 THEN
        SELECT json_agg(json_build_array(u, (
            SELECT a.balance FROM accounts a WHERE a.merchant_id = p_merchant AND a.account = 'WALLET:' || u.id
        )))::text INTO user_rows
        FROM (SELECT DISTINCT n.id FROM unnest(v_users) AS n (id)) n
        CROSS JOIN LATERAL (
            SELECT u.* FROM users u WHERE u.merchant_id = p_merchant AND u.id >= n.id AND u.id <= n.id
            ORDER BY u.merchant_id, u.id OFFSET 0
        ) u;
    END IF;
    -- If nothing is due, reserve no ids and write nothing: the polling frequency must not affect the ids of a seeded world.
    IF p_ids > 0 AND (p_due = 0 OR due_rows IS NOT NULL) THEN
        UPDATE worlds w SET id_sequence = w.id_sequence + p_ids WHERE w.merchant_id = p_merchant;
    END IF;
    RETURN NEXT;
END
$function$;
