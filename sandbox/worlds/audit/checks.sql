-- name: balances
-- Sums by pairs of accounts first: there are few pairs, whatever the number of transfers.
WITH pairs AS MATERIALIZED (
    SELECT debit_account, credit_account, sum(amount) AS amount FROM transfers WHERE merchant_id = $1
    GROUP BY debit_account, credit_account
), entries AS (
    SELECT account, sum(delta) AS balance FROM (
        SELECT credit_account AS account, amount AS delta FROM pairs
        UNION ALL SELECT debit_account, -amount FROM pairs
    ) e GROUP BY account
), held AS (SELECT account, balance FROM accounts WHERE merchant_id = $1)
SELECT format('account %s holds %s, but its transfers add up to %s', account,
    coalesce(h.balance::text, 'nothing (the account does not exist)'), coalesce(e.balance, 0.00))
FROM held h FULL JOIN entries e USING (account) WHERE h.balance IS DISTINCT FROM coalesce(e.balance, 0)
ORDER BY account LIMIT $2;

-- name: sum_is_zero
SELECT format('the balances of all accounts add up to %s instead of 0', sum(balance)) FROM accounts WHERE merchant_id = $1
HAVING sum(balance) <> 0 LIMIT $2;

-- name: locked
WITH held AS (SELECT coalesce(sum(balance), 0.00) AS balance FROM accounts WHERE merchant_id = $1 AND account = $4),
flight AS (
    SELECT coalesce(sum(amount), 0.00) AS amount FROM payouts
    WHERE merchant_id = $1 AND status <> '' AND status = ANY ($3::text[])
)
SELECT format('account LOCKED holds %s, but the payouts in flight add up to %s', held.balance, flight.amount) FROM held, flight
WHERE held.balance <> flight.amount LIMIT $2;

-- name: transfers
-- $3 … $5: the movements (reason, debit, credit), wallet accounts without their user; $6: the reasons of payouts' transfers.
SELECT format('transfer %s (%s from %s to %s for %s) %s', t.id, t.amount, t.debit_account, t.credit_account, t.reason,
    CASE WHEN t.amount <= 0 THEN 'does not move a positive amount'
    WHEN t.debit_account = t.credit_account THEN 'debits and credits the same account'
    WHEN (split_part(t.debit_account, ':', 1), split_part(t.credit_account, ':', 1)) IS DISTINCT FROM (m.debit, m.credit)
        THEN 'is between the wrong accounts'
    ELSE 'names no payout' END)
FROM transfers t
    LEFT JOIN unnest($3::text[], $4::text[], $5::text[]) AS m (reason, debit, credit) ON m.reason = t.reason
WHERE t.merchant_id = $1 AND (
    t.amount <= 0 OR t.debit_account = t.credit_account
    OR (m.reason IS NOT NULL
        AND (split_part(t.debit_account, ':', 1) <> m.debit OR split_part(t.credit_account, ':', 1) <> m.credit))
    OR (t.payout_id IS NULL AND t.reason = ANY ($6::text[])))
LIMIT $2;

-- name: chain
-- A window of at most $4 transfers (NULL: all) after the id $3. $5 and $6 are the accounts and their balances before the window.
-- Returns the window's last id, the balances after the window, and the transfers that do not follow from the ones before them.
WITH part AS MATERIALIZED (
    SELECT id, {place} AS place, debit_account, credit_account, amount, debit_balance_after, credit_balance_after
    FROM transfers WHERE merchant_id = $1 AND id > $3 ORDER BY merchant_id, id LIMIT $4
), entries AS (
    SELECT id, place, debit_account AS account, -amount AS delta, debit_balance_after AS after FROM part
    UNION ALL SELECT id, place, credit_account, amount, credit_balance_after FROM part
), chained AS (
    SELECT id, place, account, delta, after, coalesce(lag(after) OVER w, c.balance, 0.00) AS before,
        lead(id) OVER w IS NULL AS is_last
    FROM entries LEFT JOIN unnest($5::text[], $6::numeric[]) AS c (account, balance) USING (account)
    WINDOW w AS (PARTITION BY account ORDER BY place)
)
SELECT (SELECT id::text FROM part ORDER BY id DESC LIMIT 1) AS last,
    ARRAY(SELECT account FROM chained WHERE is_last ORDER BY account) AS accounts,
    ARRAY(SELECT after FROM chained WHERE is_last ORDER BY account) AS balances,
    ARRAY(SELECT format('transfer %s leaves account %s with %s, but %s before it and a change of %s make %s', id, account,
        after, before, delta, before + delta) FROM chained WHERE after <> before + delta ORDER BY place LIMIT $2) AS problems;

-- name: last_of_window
SELECT max(id::text) AS last, count(*) AS count FROM (
    SELECT id FROM payouts WHERE merchant_id = $1 AND id > $2 ORDER BY merchant_id, payouts.id LIMIT $3) w;

-- name: payouts
-- Payouts, events and transfers with payout ids in ($3, $4], so that events and transfers without their payout are found too.
-- $5 … $8: the allowed changes (from, to, event, reason), with '' for none; $9: their reasons; filtering by them leaves out
-- transfers of users' wallets.
WITH p AS MATERIALIZED (
    SELECT id, status, changes, amount, psp_reference FROM payouts WHERE merchant_id = $1 AND id > $3 AND id <= $4
), t AS MATERIALIZED (
    SELECT id, payout_id, reason, amount FROM transfers WHERE merchant_id = $1 AND payout_id > $3 AND payout_id <= $4
        AND reason = ANY ($9::text[])
), e AS MATERIALIZED (
    SELECT id, payout_id, change, type, from_status, to_status, transfer_id,
        row_number() OVER w - 1 AS place, lag(to_status) OVER w AS came_from
    FROM events WHERE merchant_id = $1 AND payout_id > $3 AND payout_id <= $4
    WINDOW w AS (PARTITION BY payout_id ORDER BY change)
), ends AS (
    SELECT DISTINCT ON (payout_id) payout_id, place + 1 AS count, to_status FROM e ORDER BY payout_id, place DESC
), legal AS MATERIALIZED (
    SELECT * FROM unnest($5::text[], $6::text[], $7::text[], $8::text[]) AS c (source, target, event, reason)
), named AS MATERIALIZED (
    SELECT transfer_id, payout_id, count(*) AS count FROM e WHERE transfer_id IS NOT NULL
    GROUP BY transfer_id, payout_id
)
(SELECT 'timeline_without_holes' AS name,
    format('event %s of payout %s is change %s, but should be change %s', id, payout_id, change, place) AS problem
    FROM e WHERE change <> place LIMIT $2)
UNION ALL
(SELECT 'timeline_without_holes',
    format('event %s of payout %s starts from %s, but the event before it ended in %s', id, payout_id,
        coalesce(from_status, 'no status'), coalesce(came_from, 'no status'))
    FROM e WHERE from_status IS DISTINCT FROM came_from LIMIT $2)
UNION ALL
(SELECT 'timeline_without_holes',
    format('payout %s counts %s changes, but its timeline has %s', p.id, p.changes, coalesce(ends.count, 0))
    FROM p LEFT JOIN ends ON ends.payout_id = p.id WHERE p.changes <> coalesce(ends.count, 0) LIMIT $2)
UNION ALL
(SELECT 'timeline_without_holes', format('payout %s has a timeline but does not exist', ends.payout_id)
    FROM ends LEFT JOIN p ON p.id = ends.payout_id WHERE p.id IS NULL LIMIT $2)
UNION ALL
(SELECT 'timeline_ends_in_status',
    format('payout %s is %s, but its timeline ends in %s', p.id, p.status, ends.to_status)
    FROM p JOIN ends ON ends.payout_id = p.id WHERE p.status <> ends.to_status LIMIT $2)
UNION ALL
(SELECT 'changes_are_legal',
    format('event %s changes payout %s from %s to %s, %s', e.id, e.payout_id, coalesce(e.from_status, 'no status'), e.to_status,
        CASE WHEN legal.event IS NULL THEN 'which is not allowed'
        ELSE format('but has the type %s instead of %s', e.type, legal.event) END)
    FROM e LEFT JOIN legal ON legal.source = coalesce(e.from_status, '') AND legal.target = e.to_status
    WHERE legal.event IS DISTINCT FROM e.type LIMIT $2)
UNION ALL
(SELECT 'changes_move_money',
    format('event %s of payout %s moves %s, but should move %s', e.id, e.payout_id,
        CASE WHEN e.transfer_id IS NULL THEN 'nothing'
        WHEN t.id IS NULL THEN format('money by transfer %s, which is not one of this payout', e.transfer_id)
        ELSE format('%s for %s by transfer %s', t.amount, t.reason, t.id) END,
        CASE WHEN legal.reason = '' THEN 'nothing' ELSE format('%s for %s', p.amount, legal.reason) END)
    FROM e JOIN legal ON legal.source = coalesce(e.from_status, '') AND legal.target = e.to_status
    LEFT JOIN p ON p.id = e.payout_id LEFT JOIN t ON t.id = e.transfer_id AND t.payout_id = e.payout_id
    WHERE CASE WHEN legal.reason = '' THEN e.transfer_id IS NOT NULL
        ELSE t.id IS NULL OR t.reason <> legal.reason OR t.amount <> p.amount END LIMIT $2)
UNION ALL
(SELECT 'transfers_have_their_event',
    format('transfer %s of payout %s belongs to %s events instead of 1', t.id, t.payout_id, coalesce(named.count, 0))
    FROM t LEFT JOIN named ON named.transfer_id = t.id AND named.payout_id = t.payout_id
    WHERE coalesce(named.count, 0) <> 1 LIMIT $2)
UNION ALL
(SELECT 'successes_have_a_reference', format('payout %s is %s but has no psp_reference', id, status) FROM p
    WHERE status = 'SUCCESS' AND psp_reference IS NULL LIMIT $2);

-- name: idempotency
-- A window of at most $4 keys after the key $3. The cast is inside the CASE, because outside it could fail on a location that
-- contains no id.
WITH part AS MATERIALIZED (
    SELECT key, location FROM idempotency_keys WHERE merchant_id = $1 AND key > $3 ORDER BY merchant_id, key LIMIT $4
)
SELECT (SELECT key FROM part ORDER BY key DESC LIMIT 1) AS last, ARRAY(
    SELECT format('idempotency key %s refers to %s, which does not exist', key, location) FROM part
    WHERE location LIKE '/api/v1/payouts/%' AND NOT EXISTS (
        SELECT 1 FROM payouts p WHERE p.merchant_id = $1 AND p.id =
            CASE WHEN location ~ '^/api/v1/payouts/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
            THEN substring(location FROM 17)::uuid END)
    LIMIT $2) AS problems;

-- name: users
-- Compares each user's totals with the user's wallet, transfers and payouts. $3 … $5: the statuses of requested, approved and
-- paid payouts.
WITH sums AS MATERIALIZED (
    SELECT account, coalesce(sum(amount) FILTER (WHERE reason = 'WALLET_EARN'), 0) AS earned,
        coalesce(sum(amount) FILTER (WHERE reason = 'WALLET_SPEND'), 0) AS spent,
        coalesce(sum(amount) FILTER (WHERE reason = 'WALLET_CREDIT'), 0) AS credited,
        coalesce(sum(amount) FILTER (WHERE reason = 'WALLET_ADVANCE'), 0) AS advances,
        coalesce(sum(CASE reason WHEN 'WALLET_FINAL' THEN amount WHEN 'WALLET_CLAWBACK' THEN -amount END), 0) AS finals,
        coalesce(sum(CASE reason WHEN 'WALLET_PAYOUT' THEN amount WHEN 'WALLET_GIVE_BACK' THEN -amount END), 0) AS taken
    FROM (
        SELECT CASE WHEN debit_account LIKE 'WALLET:%' THEN debit_account ELSE credit_account END AS account, reason, amount
        FROM transfers WHERE merchant_id = $1 AND reason LIKE 'WALLET\_%'
    ) t GROUP BY account
), asked AS MATERIALIZED (
    SELECT user_id, coalesce(sum(amount) FILTER (WHERE status = ANY ($3::text[])), 0) AS requested,
        coalesce(sum(amount) FILTER (WHERE status = ANY ($4::text[])), 0) AS approved,
        coalesce(sum(amount) FILTER (WHERE status = ANY ($5::text[])), 0) AS paid
    FROM payouts WHERE merchant_id = $1 AND user_id IS NOT NULL GROUP BY user_id
), u AS (
    SELECT u.*, a.balance AS wallet FROM users u
    LEFT JOIN accounts a ON a.merchant_id = $1 AND a.account = 'WALLET:' || u.id WHERE u.merchant_id = $1
)
(SELECT 'wallets_match_sums' AS name, format('the wallet of user %s holds %s, but the user''s totals give %s', id,
    coalesce(wallet::text, 'nothing (the account does not exist)'),
    earned + credited + advances + finals - spent - approved - paid) AS problem
    FROM u WHERE wallet IS DISTINCT FROM earned + credited + advances + finals - spent - approved - paid LIMIT $2)
UNION ALL
(SELECT 'sums_match_transfers', format('the totals of user %s (earned, spent, credited, advances, final payments, payouts) are '
    '%s, but the transfers give %s', u.id,
    format('(%s,%s,%s,%s,%s,%s)', u.earned, u.spent, u.credited, u.advances, u.finals, u.approved + u.paid),
    format('(%s,%s,%s,%s,%s,%s)', s.earned, s.spent, s.credited, s.advances, s.finals, s.taken))
    FROM u LEFT JOIN sums s ON s.account = 'WALLET:' || u.id
    WHERE (u.earned, u.spent, u.credited, u.advances, u.finals, u.approved + u.paid) IS DISTINCT FROM (coalesce(s.earned, 0),
        coalesce(s.spent, 0), coalesce(s.credited, 0), coalesce(s.advances, 0), coalesce(s.finals, 0), coalesce(s.taken, 0))
    LIMIT $2)
UNION ALL
(SELECT 'sums_match_payouts', format('the totals of user %s (requested, approved, paid) are %s, but the payouts give %s', u.id,
    format('(%s,%s,%s)', u.requested, u.approved, u.paid), format('(%s,%s,%s)', a.requested, a.approved, a.paid))
    FROM u LEFT JOIN asked a ON a.user_id = u.id
    WHERE (u.requested, u.approved, u.paid)
        IS DISTINCT FROM (coalesce(a.requested, 0), coalesce(a.approved, 0), coalesce(a.paid, 0)) LIMIT $2);

-- name: sales
-- Compares each sale's advance and final payment with its payments and their transfers.
SELECT format('sale %s has an advance of %s and a final payment of %s, but payments of %s and %s by transfers of %s and %s',
    s.id, coalesce(s.advance_amount::text, 'nothing'), coalesce(s.final_amount::text, 'nothing'),
    coalesce(a.amount::text, 'nothing'), coalesce(f.amount::text, 'nothing'),
    coalesce(ta.amount::text, 'nothing'), coalesce(tf.amount::text, 'nothing'))
FROM sales s
LEFT JOIN sale_payments a ON a.merchant_id = $1 AND a.sale_id = s.id AND a.kind = 'ADVANCE'
LEFT JOIN sale_payments f ON f.merchant_id = $1 AND f.sale_id = s.id AND f.kind = 'FINAL'
LEFT JOIN transfers ta ON ta.merchant_id = $1 AND ta.id = a.transfer_id
LEFT JOIN transfers tf ON tf.merchant_id = $1 AND tf.id = f.transfer_id
WHERE s.merchant_id = $1 AND (
    s.advance_amount IS DISTINCT FROM a.amount OR s.final_amount IS DISTINCT FROM f.amount
    OR coalesce(a.amount, 0) <> coalesce(ta.amount, 0) OR abs(coalesce(f.amount, 0)) <> coalesce(tf.amount, 0))
LIMIT $2;

-- name: bulk_credits
SELECT format('bulk credit %s counts %s credited rows, but %s rows have a transfer', b.id, b.succeeded, i.credited)
FROM bulk_credits b CROSS JOIN LATERAL (
    SELECT count(*) AS credited FROM bulk_credit_items i JOIN transfers t ON t.merchant_id = $1 AND t.id = i.transfer_id
        AND t.reason = 'WALLET_CREDIT' AND t.credit_account = 'WALLET:' || i.user_id AND t.amount = i.amount::numeric
    WHERE i.merchant_id = $1 AND i.activity_id = b.id AND i.status = 'SUCCEEDED'
) i WHERE b.merchant_id = $1 AND b.succeeded <> i.credited LIMIT $2;

-- name: references
-- These references have no foreign key: it would look the referenced row up again for each row that is written. Each statement
-- reads a window of at most $4 different ids after the id $3, by an index on that column. `last` is null after the last window.
WITH part AS MATERIALIZED (
    SELECT DISTINCT {column} AS id FROM {table} WHERE merchant_id = $1 AND {column} > $3 ORDER BY {column} LIMIT $4
)
SELECT (SELECT max(id::text) FROM part HAVING count(*) = $4) AS last, ARRAY(
    SELECT format('{table}.{column} refers to %s, which does not exist in {referenced}', part.id) FROM part
    WHERE NOT EXISTS (
        SELECT 1 FROM {referenced} r WHERE r.merchant_id = $1 AND r.id >= part.id AND r.id <= part.id
        ORDER BY r.merchant_id, r.id OFFSET 0
    ) LIMIT $2) AS problems;
