"""The audit's statements. Each is right by itself: one statement sees one moment, and every transaction of a merchant's
work is whole in it.

Those that go over payouts or transfers in windows take the window as parameters and read it by an index, so that no
statement runs for long however much there is.
"""

from typing import Final

# Summed by pairs of accounts first: there are few, whatever the number of transfers.
BALANCES: Final = """
WITH pairs AS MATERIALIZED (
    SELECT debit_account, credit_account, sum(amount) AS amount FROM transfers WHERE merchant_id = $1
    GROUP BY debit_account, credit_account
), entries AS (
    SELECT account, sum(delta) AS balance FROM (
        SELECT credit_account AS account, amount AS delta FROM pairs
        UNION ALL SELECT debit_account, -amount FROM pairs
    ) e GROUP BY account
), held AS (SELECT account, balance FROM accounts WHERE merchant_id = $1)
SELECT format('account %s holds %s, and its transfers come to %s', account,
    coalesce(h.balance::text, 'nothing, not even a row'), coalesce(e.balance, 0.00))
FROM held h FULL JOIN entries e USING (account) WHERE h.balance IS DISTINCT FROM coalesce(e.balance, 0)
ORDER BY account LIMIT $2
"""

SUM_IS_ZERO: Final = """
SELECT format('the balances of all accounts sum up to %s', sum(balance)) FROM accounts WHERE merchant_id = $1
HAVING sum(balance) <> 0 LIMIT $2
"""

LOCKED: Final = """
WITH held AS (SELECT coalesce(sum(balance), 0.00) AS balance FROM accounts WHERE merchant_id = $1 AND account = $4),
flight AS (
    SELECT coalesce(sum(amount), 0.00) AS amount FROM payouts WHERE merchant_id = $1 AND status = ANY ($3::text[])
)
SELECT format('LOCKED holds %s, and the payouts in flight come to %s', held.balance, flight.amount) FROM held, flight
WHERE held.balance <> flight.amount LIMIT $2
"""

# $3 … $5: the movements (reason, debit, credit); $6: the reasons that belong to payouts.
TRANSFERS: Final = """
SELECT format('transfer %s, %s from %s to %s for %s%s', t.id, t.amount, t.debit_account, t.credit_account, t.reason,
    CASE WHEN t.amount <= 0 THEN ', moves nothing' WHEN t.debit_account = t.credit_account THEN ', stays where it is'
    WHEN (t.debit_account, t.credit_account) IS DISTINCT FROM (m.debit, m.credit) THEN ', is between the wrong accounts'
    ELSE ', names no payout' END)
FROM transfers t
    LEFT JOIN unnest($3::text[], $4::text[], $5::text[]) AS m (reason, debit, credit) ON m.reason = t.reason
WHERE t.merchant_id = $1 AND (
    t.amount <= 0 OR t.debit_account = t.credit_account
    OR (m.reason IS NOT NULL AND (t.debit_account <> m.debit OR t.credit_account <> m.credit))
    OR (t.payout_id IS NULL AND t.reason = ANY ($6::text[])))
LIMIT $2
"""

# A window of transfers behind the id $3, at most $4 of them (NULL: all), begun with the accounts' balances $5, $6.
# Answers the window's last id, the balances that it ends with, and what does not follow from what came before it.
CHAIN: Final = """
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
    ARRAY(SELECT format('transfer %s leaves %s with %s, and %s with %s would be %s', id, account, after, before, delta,
        before + delta) FROM chained WHERE after <> before + delta ORDER BY place LIMIT $2) AS problems
"""
CHAIN_BY_TIME: Final = CHAIN.format(place="id")
# The merchant's counter inside the id, in the order in which transactions committed: behind 48 bits of time and 4 of
# version stand its high bits, then 2 constant bits, then its low ones.
CHAIN_BY_COUNTER: Final = CHAIN.format(place="substring(uuid_send(id) FROM 7)")

LAST_OF_WINDOW: Final = """
SELECT max(id::text) AS last, count(*) AS count FROM (
    SELECT id FROM payouts WHERE merchant_id = $1 AND id > $2 ORDER BY merchant_id, payouts.id LIMIT $3) w
"""

# The payouts with ids in ($3, $4], whatever their table says of them: an event or a transfer without its payout is
# found here too. $5 … $8: the table of legal changes (from, to, event, reason); '' is none.
PAYOUTS: Final = """
WITH p AS MATERIALIZED (
    SELECT id, status, changes, amount, psp_reference FROM payouts WHERE merchant_id = $1 AND id > $3 AND id <= $4
), t AS MATERIALIZED (
    SELECT id, payout_id, reason, amount FROM transfers WHERE merchant_id = $1 AND payout_id > $3 AND payout_id <= $4
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
    format('event %s of payout %s is change %s, and should be %s', id, payout_id, change, place) AS problem
    FROM e WHERE change <> place LIMIT $2)
UNION ALL
(SELECT 'timeline_without_holes',
    format('event %s of payout %s comes from %s, and the one before it led to %s', id, payout_id,
        coalesce(from_status, 'nothing'), coalesce(came_from, 'nothing'))
    FROM e WHERE from_status IS DISTINCT FROM came_from LIMIT $2)
UNION ALL
(SELECT 'timeline_without_holes',
    format('payout %s counts %s changes, and its timeline %s', p.id, p.changes, coalesce(ends.count, 0))
    FROM p LEFT JOIN ends ON ends.payout_id = p.id WHERE p.changes <> coalesce(ends.count, 0) LIMIT $2)
UNION ALL
(SELECT 'timeline_without_holes', format('the timeline of payout %s belongs to no payout', ends.payout_id)
    FROM ends LEFT JOIN p ON p.id = ends.payout_id WHERE p.id IS NULL LIMIT $2)
UNION ALL
(SELECT 'timeline_ends_in_status',
    format('payout %s is %s, and its timeline ends in %s', p.id, p.status, ends.to_status)
    FROM p JOIN ends ON ends.payout_id = p.id WHERE p.status <> ends.to_status LIMIT $2)
UNION ALL
(SELECT 'changes_are_legal',
    format('event %s takes payout %s from %s to %s as %s, which no change does', e.id, e.payout_id,
        coalesce(e.from_status, 'nothing'), e.to_status, e.type)
    FROM e LEFT JOIN legal ON legal.source = coalesce(e.from_status, '') AND legal.target = e.to_status
    WHERE legal.event IS DISTINCT FROM e.type LIMIT $2)
UNION ALL
(SELECT 'changes_move_money',
    format('event %s of payout %s moves %s, and should move %s', e.id, e.payout_id,
        CASE WHEN e.transfer_id IS NULL THEN 'nothing'
        WHEN t.id IS NULL THEN format('by %s, no transfer of this payout', e.transfer_id)
        ELSE format('%s for %s by %s', t.amount, t.reason, t.id) END,
        CASE WHEN legal.reason = '' THEN 'nothing' ELSE format('%s for %s', p.amount, legal.reason) END)
    FROM e JOIN legal ON legal.source = coalesce(e.from_status, '') AND legal.target = e.to_status
    LEFT JOIN p ON p.id = e.payout_id LEFT JOIN t ON t.id = e.transfer_id AND t.payout_id = e.payout_id
    WHERE CASE WHEN legal.reason = '' THEN e.transfer_id IS NOT NULL
        ELSE t.id IS NULL OR t.reason <> legal.reason OR t.amount <> p.amount END LIMIT $2)
UNION ALL
(SELECT 'transfers_have_their_event',
    format('transfer %s of payout %s is named by %s events', t.id, t.payout_id, coalesce(named.count, 0))
    FROM t LEFT JOIN named ON named.transfer_id = t.id AND named.payout_id = t.payout_id
    WHERE coalesce(named.count, 0) <> 1 LIMIT $2)
UNION ALL
(SELECT 'successes_have_a_reference', format('payout %s is %s and has no psp_reference', id, status) FROM p
    WHERE status = 'SUCCESS' AND psp_reference IS NULL LIMIT $2)
"""

# A window of keys behind the key $3, at most $4 of them. The cast stands inside the CASE, or it would be tried on what
# is no id.
IDEMPOTENCY: Final = """
WITH part AS MATERIALIZED (
    SELECT key, location FROM idempotency_keys WHERE merchant_id = $1 AND key > $3 ORDER BY merchant_id, key LIMIT $4
)
SELECT (SELECT key FROM part ORDER BY key DESC LIMIT 1) AS last, ARRAY(
    SELECT format('idempotency key %s names %s, which is not there', key, location) FROM part
    WHERE location LIKE '/api/v1/payouts/%' AND NOT EXISTS (
        SELECT FROM payouts p WHERE p.merchant_id = $1 AND p.id =
            CASE WHEN location ~ '^/api/v1/payouts/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
            THEN substring(location FROM 17)::uuid END)
    LIMIT $2) AS problems
"""
