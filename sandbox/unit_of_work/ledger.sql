-- The only statements that write transfers and balances. `$1` is the merchant, whose lock the caller holds.

-- name: credits
-- Wallets and USER_FUNDS have no lower bound, so no credit can be refused. The server adds up what `post` in
-- sandbox/domain/ledger.py would: one transfer after the other, each with both balances after it. The last SELECT reads the
-- balances as they were before: a statement does not see its own changes.
WITH credits AS MATERIALIZED (
    SELECT transfer_id AS id, 'WALLET:' || user_id AS account, amount, line
    FROM json_to_recordset($3::json) AS n (transfer_id uuid, user_id text, amount numeric, line int)
), changes AS (
    SELECT account, sum(amount) AS amount, count(*) AS changes FROM credits GROUP BY account
    UNION ALL SELECT 'USER_FUNDS', -sum(amount), count(*) FROM credits
), changed AS (
    INSERT INTO accounts AS t (merchant_id, account, balance, version, updated_at)
    SELECT $1, k.account, k.balance + n.amount, k.version + n.changes, $2
    FROM changes n
    CROSS JOIN LATERAL (
        SELECT * FROM accounts
        WHERE accounts.merchant_id = $1 AND accounts.account >= n.account AND accounts.account <= n.account
        ORDER BY accounts.merchant_id, accounts.account OFFSET 0
    ) k
    ON CONFLICT (merchant_id, account) DO UPDATE SET balance = EXCLUDED.balance, version = EXCLUDED.version,
        updated_at = EXCLUDED.updated_at
)
INSERT INTO transfers (merchant_id, id, debit_account, credit_account, amount, debit_balance_after, credit_balance_after,
    reason, payout_id, description, created_at)
SELECT $1, c.id, 'USER_FUNDS', c.account, c.amount, funds.balance - sum(c.amount) OVER (ORDER BY c.line),
    wallet.balance + sum(c.amount) OVER (PARTITION BY c.account ORDER BY c.line),
    'WALLET_CREDIT', NULL, $4 || ' line ' || c.line, $2
FROM (SELECT balance FROM accounts WHERE merchant_id = $1 AND account = 'USER_FUNDS' OFFSET 0) funds
CROSS JOIN credits c
CROSS JOIN LATERAL (SELECT balance FROM accounts WHERE merchant_id = $1 AND account = c.account OFFSET 0) wallet;

-- name: open_accounts
INSERT INTO accounts (merchant_id, account, balance, version, updated_at)
SELECT $1, account, $2, 0, $3 FROM unnest($4::text[]) AS a (account);
