"""Fill a separate database with many rows per merchant, and measure how much each statement reads with its generic plan."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from sandbox.domain.ids import MAX_ID, MIN_ID
from sandbox.infrastructure.db.engine import APPLICATION_ROLE, PLANNER
from sandbox.infrastructure.db.migrate import migrate

MERCHANT = "00000000-0000-7000-8000-0000000000aa"
NOW = "2031-01-01 00:00:00+00"
BATCH = 60
"""The number of rows that statements are asked to read."""

# The n-th row of every table has the same id, so an id of any table finds a row in every other one. Of the rows that can be
# due, one in twenty is due. The first user of a merchant has half of all sales and transactions, and a transfer for each row.
_FILL = """
CREATE TEMP TABLE seed AS
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(m), 12, '0'))::uuid AS merchant_id, n,
    ('10000000-0000-7000-8000-' || lpad(to_hex(m * 1000000::bigint + n), 12, '0'))::uuid AS id
FROM generate_series(FIRST_MERCHANT, LAST_MERCHANT) m, generate_series(FIRST_ROW, LAST_ROW) n;
CREATE TEMP TABLE one AS SELECT merchant_id, id FROM seed WHERE n = 1;
CREATE TEMP TABLE first AS SELECT DISTINCT merchant_id, overlay(id::text placing lpad(to_hex(
    ('x' || right(merchant_id::text, 12))::bit(48)::bigint * 1000000 + 1), 12, '0') from 25)::uuid AS id FROM seed;
INSERT INTO merchants (merchant_id, name, ipn_secret, webhook_secret, created_at)
    SELECT merchant_id, 'M', 'x', 'x', NOW FROM one;
INSERT INTO worlds (merchant_id) SELECT merchant_id FROM one;
INSERT INTO api_keys (merchant_id, id, key_hash, role, name, created_at)
    SELECT merchant_id, id, sha256(id::text::bytea), 'admin', 'K', NOW FROM one;
INSERT INTO key_merchants (key_hash, merchant) SELECT key_hash, merchant_id FROM api_keys ON CONFLICT DO NOTHING;
INSERT INTO accounts (merchant_id, account, balance, version, updated_at)
    SELECT merchant_id, unnest('{AVAILABLE,FUNDING,LOCKED,SETTLEMENT,USER_FUNDS}'::text[]), 0, 0, NOW FROM one;
INSERT INTO accounts (merchant_id, account, balance, version, updated_at)
    SELECT merchant_id, 'WALLET:' || id, 0, 0, NOW FROM seed;
INSERT INTO users (merchant_id, id, name, external_id, vendor_user_id, earned, spent, credited, advances, finals, requested,
    approved, paid, version, created_at, updated_at)
    SELECT merchant_id, id, 'U', 'ref-' || n, id::text, 0, 0, 0, 0, 0, CASE WHEN n % 20 = 0 THEN 1 ELSE 0 END, 0, 0, 0, NOW, NOW
    FROM seed;
INSERT INTO payouts (merchant_id, id, merchant_reference, amount, currency, dest_type, bank_code, account_number, status,
    scenario, psp_reference, attempts, metadata, user_id, step, due_at, changes, request_id, created_at, updated_at)
    SELECT merchant_id, id, 'ref-' || n, 1, 'PKR', 'BANK', 'HBL', '1', 'SUCCESS', 'success', 'ref-' || n, 1, '{}', id, 2,
        CASE WHEN n % 20 = 0 THEN NOW END, 1, 'r', NOW, NOW FROM seed;
INSERT INTO payout_metadata (merchant_id, pair, payout_id) SELECT merchant_id, id, id FROM seed;
INSERT INTO transfers (merchant_id, id, debit_account, credit_account, amount, debit_balance_after, credit_balance_after,
    reason, payout_id, description, created_at)
    SELECT merchant_id, id, 'LOCKED', 'SETTLEMENT', 1, 0, 0, 'PAYOUT_SETTLE', id, '', NOW FROM seed;
INSERT INTO transfers (merchant_id, id, debit_account, credit_account, amount, debit_balance_after, credit_balance_after,
    reason, payout_id, description, created_at)
    SELECT merchant_id, overlay(s.id::text placing '2' from 1 for 1)::uuid, 'USER_FUNDS', 'WALLET:' || first.id, 1, 0, 0,
        CASE WHEN n = 1 THEN 'WALLET_ADVANCE' ELSE 'WALLET_CREDIT' END, s.id, '', NOW
    FROM seed s JOIN first USING (merchant_id);
INSERT INTO events (merchant_id, id, type, body, payout_id, change, to_status, cause, request_id, created_at)
    SELECT merchant_id, id, 'payout.created', '{}', id, 0, 'PENDING', 'api', 'r', NOW FROM seed;
INSERT INTO webhook_endpoints (merchant_id, id, url, event_types, signing, signing_time, retry_profile, ordered, description,
    secret, status, created_at, updated_at)
    SELECT merchant_id, id, 'http://127.0.0.1:9', '{*}', 'v1', 'host', 'fast', false, '', 'x', 'ENABLED', NOW, NOW FROM one;
INSERT INTO webhook_deliveries (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, next_attempt_at,
    created_at, updated_at)
    SELECT merchant_id, s.id, s.id, one.id, 'SUCCEEDED', 1, 1, CASE WHEN n % 20 = 0 THEN NOW END, NOW, NOW
    FROM seed s JOIN first one USING (merchant_id);
INSERT INTO webhook_attempts (merchant_id, delivery_id, attempt, at, url, signature, response_headers, response_body,
    duration_ms) SELECT merchant_id, id, 1, NOW, '', '', '{}', '', 1 FROM seed;
INSERT INTO idempotency_keys (merchant_id, key, fingerprint, status, body, expires_at)
    SELECT merchant_id, id::text, 'x', 201, 'x', CASE WHEN n % 20 = 0 THEN NOW ELSE 'infinity' END FROM seed;
INSERT INTO user_transactions (merchant_id, id, user_id, type, amount, transfer_id, created_at)
    SELECT merchant_id, s.id, CASE WHEN n % 2 = 0 THEN s.id ELSE first.id END, 'EARNED', 1, s.id, NOW
    FROM seed s JOIN first USING (merchant_id);
INSERT INTO sales (merchant_id, id, user_id, brand, earning, status, advance_amount, advance_due, final_due, due_at,
    created_at)
    SELECT merchant_id, s.id, CASE WHEN n % 2 = 0 THEN s.id ELSE first.id END, 'B', 1, 'PENDING',
        CASE WHEN n % 20 = 0 THEN NULL ELSE 1 END, n % 20 = 0, false, CASE WHEN n % 20 = 0 THEN NOW END, NOW
    FROM seed s JOIN first USING (merchant_id);
INSERT INTO sale_payments (merchant_id, sale_id, kind, amount, transfer_id, created_at)
    SELECT merchant_id, id, 'ADVANCE', 1, id, NOW FROM seed;
INSERT INTO bulk_credits (merchant_id, id, status, total, invalid, duplicates, succeeded, failed, request_id, created_at,
    updated_at) SELECT merchant_id, id, CASE WHEN n = 1 THEN 'PROCESSING' ELSE 'COMPLETED' END, 9, 0, 0, 0, 0, 'r', NOW, NOW
    FROM seed;
INSERT INTO bulk_credit_items (merchant_id, activity_id, line, user_id, amount, status, transfer_id, same_as_line)
    SELECT merchant_id, one.id, n, s.id, '1.00', CASE WHEN n % 20 = 0 THEN 'PENDING' ELSE 'SUCCEEDED' END,
        CASE WHEN n % 20 = 0 THEN NULL ELSE s.id END, CASE WHEN n % 20 = 1 AND n > 1 THEN 1 END
        FROM seed s JOIN first one USING (merchant_id);
INSERT INTO vendor_cursors (merchant_id, page, failures, next_poll_at, last_id, updated_at)
    SELECT merchant_id, 1, 0, NOW, id, NOW FROM one;
INSERT INTO vendor_fetches (merchant_id, id, url, page, at, ended_by, outcome)
    SELECT merchant_id, id, '', 1, NOW, NOW, 'RUNNING' FROM seed;
INSERT INTO vendor_transactions (merchant_id, vendor_id, user_id, type, amount, created_at)
    SELECT merchant_id, id::text, id::text, 'earned', 1, NOW FROM seed;
INSERT INTO vendor_balances (merchant_id, user_id, id, earned, spent, payout, paid_out, updated_at)
    SELECT merchant_id, id::text, id, 0, 0, CASE WHEN n % 20 = 0 THEN 1 ELSE 0 END, 0, NOW FROM seed;
INSERT INTO vendor_dead_letters (merchant_id, id, digest, raw, reason, created_at)
    SELECT merchant_id, id, sha256(id::text::bytea), '', '', NOW FROM seed;
INSERT INTO snapshots (merchant_id, id, name, rows, size, clock_at, created_at)
    SELECT merchant_id, id, 'S', 0, 0, NOW, NOW FROM seed;
INSERT INTO scenario_rules (merchant_id, id, name, position, match, steps) SELECT merchant_id, id, 'R', 1, '{}', '{}' FROM one;
INSERT INTO faults (merchant_id, id, target, kind, match, parameters, probability, matches, hits, created_at)
    SELECT merchant_id, id, 'api', 'K', '{}', '{}', 1, 9, 0, NOW FROM one;
INSERT INTO receiver_tests (merchant_id, id, url, signing, is_finished, interrupted, findings, created_at, heartbeat_at)
    SELECT merchant_id, id, '', 'v1', true, false, '[]', NOW, NOW FROM seed WHERE n <= 100;
DROP TABLE seed, one, first;
"""


def ids(first: int = 1, count: int = BATCH) -> list[str]:
    """Return `count` ids of the merchant's rows in order, starting with the id of row number `first`."""
    return [f"10000000-0000-7000-8000-{0xAA * 1_000_000 + n:012x}" for n in range(first, first + count)]


@dataclass(frozen=True, slots=True)
class ReadCost:
    """The cost of a statement: the table rows, and the pages of tables and indexes, that it read."""

    rows: float
    pages: int
    plan: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.rows:.0f} rows, {self.pages} pages\n{self.plan}"


class Database:
    """A database that no sandbox uses. Only `analyze` analyzes its tables."""

    def __init__(self, server_url: str, name: str) -> None:
        self._server_url = server_url
        self._name = name
        self.url = re.sub(r"/[^/?]*(?=\?|$)", f"/{name}", server_url, count=1)

    async def create(self) -> None:
        """Create the database with all tables, empty."""
        server = await asyncpg.connect(self._server_url)
        await server.execute(f"CREATE DATABASE {self._name}")
        await server.close()
        await migrate(self.url)
        tables = await self._execute_as_owner(
            "SELECT format('%I', relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        for (table,) in tables:
            await self._execute_as_owner(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")

    async def drop(self) -> None:
        """Drop the database."""
        server = await asyncpg.connect(self._server_url)
        await server.execute(f"DROP DATABASE {self._name} WITH (FORCE)")
        await server.close()

    async def _execute_as_owner(self, sql: str) -> list[asyncpg.Record]:
        conn = await asyncpg.connect(self.url)
        try:
            return await conn.fetch(sql)
        finally:
            await conn.close()

    async def fill(self, first_merchant: int, last_merchant: int, rows: int, first_row: int = 1) -> None:
        """Insert rows `first_row` to `rows` into each table for each of these merchants. Row 1 also creates the merchant."""
        values = {
            "FIRST_MERCHANT": first_merchant, "LAST_MERCHANT": last_merchant, "FIRST_ROW": first_row, "LAST_ROW": rows,
            "NOW": f"'{NOW}'::timestamptz",
        }  # fmt: skip
        text = re.sub(r"\b[A-Z_]+\b", lambda word: str(values.get(word[0], word[0])), _FILL)
        conn = await asyncpg.connect(self.url)
        try:
            # Skip foreign key checks: the references are valid by construction, and checking costs more than the rest.
            await conn.execute("SET session_replication_role = replica")
            await conn.execute(text)
        finally:
            await conn.close()

    async def analyze(self) -> None:
        """Update the planner's statistics of all tables."""
        await self._execute_as_owner("ANALYZE")

    async def fake_one_row_statistics(self) -> None:
        """Make the planner believe that no merchant has more than one row in any table."""
        await self._execute_as_owner(
            "SELECT pg_clear_attribute_stats('public', tablename, 'merchant_id', false), "
            "pg_restore_attribute_stats('schemaname', 'public', 'relname', tablename::text, 'attname', 'merchant_id', "
            "'inherited', false, 'null_frac', 0::real, 'avg_width', 16, 'n_distinct', -1::real) "
            "FROM pg_stats WHERE schemaname = 'public' AND attname = 'merchant_id'"
        )

    async def foreign_keys(self) -> dict[str, tuple[str, Sequence[object]]]:
        """Return PostgreSQL's own lookups for foreign keys, without their row locks, by constraint name."""
        found = await self._execute_as_owner(
            """
            SELECT conname, confrelid::regclass::text AS referenced, ARRAY(
                SELECT attname::text FROM unnest(confkey) WITH ORDINALITY AS k (number, position)
                JOIN pg_attribute ON attrelid = confrelid AND attnum = number ORDER BY position
            ) AS columns FROM pg_constraint WHERE contype = 'f'
            """
        )
        statements = {}
        for name, referenced, columns in found:
            where = " AND ".join(f"{column} = ${number}" for number, column in enumerate(columns, 1))
            statements[f"foreign key {name}"] = (f"SELECT 1 FROM ONLY {referenced} x WHERE {where}", ())
        return statements

    async def unused_indexes(self) -> set[str]:
        """Return the indexes, other than unique ones, that no statement has scanned so far."""
        found = await self._execute_as_owner(
            "SELECT indexrelid::regclass::text FROM pg_stat_user_indexes JOIN pg_index USING (indexrelid) "
            "WHERE idx_scan = 0 AND NOT indisunique AND schemaname = 'public'"
        )
        return {name for (name,) in found}

    async def prepare(self, statements: Mapping[str, tuple[str, Sequence[object]]]) -> "PreparedStatements":
        """Connect as the product's pool does, then prepare and plan all statements, given as name → (SQL, arguments)."""
        conn = await asyncpg.connect(
            self.url, server_settings={"role": APPLICATION_ROLE, **PLANNER}, statement_cache_size=0, command_timeout=60
        )
        calls: dict[str, str] = {}
        for number, (name, (sql, arguments)) in enumerate(statements.items()):
            types = [kind.name + "[]" * (kind.kind == "array") for kind in (await conn.prepare(sql)).get_parameters()]
            types = [re.sub(r"\[\]\[\]$", "[]", kind) for kind in types]
            await conn.execute(f"PREPARE s{number} ({', '.join(types)}) AS {sql}" if types else f"PREPARE s{number} AS {sql}")
            given = zip(_arguments(sql, arguments, types), types, strict=True)
            values = ", ".join(_literal(value, kind) for value, kind in given)
            calls[name] = f"EXECUTE s{number}({values})" if types else f"EXECUTE s{number}"
            await conn.execute(f"EXPLAIN {calls[name]}")
        return PreparedStatements(conn, calls, {name for name, (sql, _) in statements.items() if _CALLS_A_FUNCTION.search(sql)})


_CALLS_A_FUNCTION = re.compile(r"\bpsp_\w+\(")
# The rows that this session has read from each table and not yet added to the shared statistics.
_ROWS_READ = "SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables"


class PreparedStatements:
    """Statements that are already planned and can be run later."""

    def __init__(
        self, conn: "asyncpg.Connection[asyncpg.Record]", calls: Mapping[str, str], functions: Collection[str]
    ) -> None:
        """`functions` names the calls of database functions: EXPLAIN does not show the plans inside a function."""
        self._conn = conn
        self._calls = calls
        self._functions = functions

    async def measure(self) -> dict[str, ReadCost]:
        """Run each statement with its generic plan, roll it back, and close the connection.

        Statements that read no table are omitted. Raises AssertionError if statements fail.
        """
        readings, failed = {}, []
        for name, call in self._calls.items():
            plan = json.loads(await self._conn.fetchval(f"EXPLAIN (FORMAT JSON) {call}"))[0]["Plan"]
            if not _reads_a_table(plan) and name not in self._functions:
                continue
            transaction = self._conn.transaction()
            await transaction.start()
            try:
                await self._conn.execute("SELECT pg_current_xact_id()")  # as the claim does; `psp_write` refuses to run without
                before = await self._rows_read()
                text = await self._conn.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {call}")
            except asyncpg.PostgresError as error:
                failed.append(f"{name}: {error}")
            else:
                plan = json.loads(text)[0]["Plan"]
                rows = _rows_read_by(plan)
                if name in self._functions:  # count the table of which it reads the most rows
                    rows = float(max(n - before.get(table, 0) for table, n in (await self._rows_read()).items()))
                readings[name] = ReadCost(rows, plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], plan)
            finally:
                await transaction.rollback()
        await self._conn.close()
        assert not failed, "\n".join(failed)
        return readings

    async def _rows_read(self) -> dict[str, int]:
        return dict(await self._conn.fetch(_ROWS_READ))


def _is_table_read(plan: Mapping[str, Any]) -> bool:
    return "Relation Name" in plan and plan["Node Type"] != "ModifyTable"


def _reads_a_table(plan: Mapping[str, Any]) -> bool:
    return _is_table_read(plan) or any(_reads_a_table(part) for part in plan.get("Plans", ()))


def _rows_read_by(plan: Mapping[str, Any]) -> float:
    own = 0.0
    if _is_table_read(plan):
        removed = plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
        own = (plan["Actual Rows"] + removed) * plan["Actual Loops"]
    return own + sum(_rows_read_by(part) for part in plan.get("Plans", ()))


def _arguments(sql: str, arguments: Sequence[object], types: Sequence[str]) -> list[object]:
    """Fill in omitted or `...` arguments with defaults: the merchant, a range end, or a matching value by type."""
    given = [*arguments, *[...] * (len(types) - len(arguments))]
    return [
        _default(sql, number, kind) if value is ... else value
        for number, (value, kind) in enumerate(zip(given, types, strict=True), 1)
    ]


def _default(sql: str, number: int, kind: str) -> object:
    if kind == "uuid":
        if re.search(rf"merchant_id = \${number}\b", sql):
            return MERCHANT
        above, below = (re.search(rf"{sign}=? (\([^()]*)?\${number}\b", sql) is not None for sign in "<>")
        if above != below:
            return MAX_ID if above else MIN_ID
    return DEFAULTS[kind]


def _literal(value: object, kind: str) -> str:
    if value is None:
        return f"NULL::{kind}"
    if isinstance(value, bytes):
        value = f"\\x{value.hex()}"
    if isinstance(value, list):
        inner = ",".join(
            "NULL" if one is None else '"' + str(one).replace("\\", "\\\\").replace('"', '\\"') + '"' for one in value
        )
        value = "{" + inner + "}"
    return "'" + str(value).replace("'", "''") + f"'::{kind}"


def row(n: int, **others: object) -> dict[str, object]:
    """Return the n-th row as an object for json_to_recordset, with all columns that any statement reads."""
    id_ = ids(n, 1)[0]
    zero = dict.fromkeys(("earned", "spent", "credited", "advances", "finals", "requested", "approved", "paid"), 0)
    return {
        "id": id_, "user_id": id_, "payout_id": id_, "transfer_id": id_, "event_id": id_, "endpoint_id": ids()[0], "key": id_,
        "account": f"WALLET:{id_}", "balance": 1, "amount": 1, "changes": 1, "version": 1, "line": n, "attempts": 1, "step": 1,
        "scheduled": 1, "status": "SUCCESS", "scenario": "success", "psp_reference": "P", "at": NOW, "url": "", "signature": "",
        "headers": {}, "body": "", "duration_ms": 1, "request_id": "r", **zero, **others,
    }  # fmt: skip


def json_rows(**others: object) -> str:
    """Return BATCH rows as the JSON that the product sends."""
    return json.dumps([row(n, **others) for n in range(1, BATCH + 1)])


DEFAULTS: Mapping[str, object] = {
    "uuid": ids()[0],
    "uuid[]": ids(),
    "text": "ref-1",
    "text[]": [f"ref-{n}" for n in range(1, BATCH + 1)],
    "int4": BATCH,
    "int4[]": [BATCH] * BATCH,
    "int8": BATCH,
    "int8[]": [BATCH],
    "numeric": 1,
    "numeric[]": [1] * BATCH,
    "bool": True,
    "float8": 0.5,
    "timestamptz": NOW,
    "timestamptz[]": [NOW] * BATCH,
    "interval": "1 hour",
    "bytea": "\\x" + hashlib.sha256(ids()[0].encode()).hexdigest(),
    "bytea[]": ["\\x" + hashlib.sha256(id_.encode()).hexdigest() for id_ in ids()],
    "json": json_rows(),
    "jsonb": "{}",
}
