"""Store settled payouts in advance, to measure creates in a full database.

Stores the same rows as the API and the worker do: payout, two transfers, three events, idempotency key, balances. The
audit stays clean.
"""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.cli.benches.database import Database
from sandbox.cli.benches.stack import BenchError, Merchant
from sandbox.domain.clock import milliseconds, truncate

if TYPE_CHECKING:
    from sandbox.cli.benches.database import Connection

BATCH = 20_000
_IDS = 6
_SCRIPT = Path(__file__).with_name("preload.sql")

_LOCK = "UPDATE worlds SET id_sequence = id_sequence + $2 WHERE merchant_id = $1 RETURNING id_sequence - $2"

# Ids have the sandbox's own form of UUIDv7 (sandbox/domain/ids.py), so that they sort correctly among the others.
_PREPARE = """
CREATE OR REPLACE FUNCTION pg_temp.psp_bench_id(moment bigint, counter bigint) RETURNS uuid LANGUAGE sql AS $$
    SELECT (lpad(to_hex(moment), 12, '0') || '7' || lpad(to_hex(counter >> 20 & 4095), 3, '0')
        || to_hex((-9223372036854775808)::bigint | ((counter & 1048575) << 42)
            | floor(random() * 4398046511104)::bigint))::uuid
$$;
CREATE TEMP TABLE IF NOT EXISTS psp_bench_rows (
    number bigint, payout_id uuid, lock_id uuid, created_event uuid, processing_event uuid, settle_id uuid,
    succeeded_event uuid, reference text, request_id text, psp_reference text, written text,
    available_after numeric(20, 2), locked_between numeric(20, 2), settled_after numeric(20, 2)
) ON COMMIT DELETE ROWS
"""

_ROWS = """
INSERT INTO psp_bench_rows
SELECT i, pg_temp.psp_bench_id($3, c), pg_temp.psp_bench_id($3, c + 1), pg_temp.psp_bench_id($3, c + 2),
    pg_temp.psp_bench_id($3, c + 3), pg_temp.psp_bench_id($3, c + 4), pg_temp.psp_bench_id($3, c + 5),
    $5 || '-' || lpad((i + $7)::text, 11, '0'), gen_random_uuid()::text,
    'PSP' || to_char($8::timestamptz AT TIME ZONE 'UTC', 'YYYYMMDD') || upper(substr(md5(i::text), 1, 12)), $6,
    (SELECT balance FROM accounts WHERE merchant_id = $1 AND account = 'AVAILABLE') - i - 1,
    (SELECT balance FROM accounts WHERE merchant_id = $1 AND account = 'LOCKED') + 1,
    (SELECT balance FROM accounts WHERE merchant_id = $1 AND account = 'SETTLEMENT') + i + 1
FROM generate_series(0, $2::bigint - 1) AS i CROSS JOIN LATERAL (SELECT $4::bigint + i * 6 AS c) n
"""


def preload(database: Database, merchant: Merchant, count: int, on_stored: Callable[[int], None]) -> None:
    """Store `count` settled payouts, then update the planner's statistics. Raises BenchError.

    Calls `on_stored` with the size of each batch.
    """

    async def work(conn: "Connection") -> None:
        statements = [part.strip() for part in _SCRIPT.read_text("utf-8").split(";\n") if part.strip()]
        await conn.execute(_PREPARE)
        if await conn.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
            # Turn off foreign key checks, which would double the time. Each batch contains all rows that it refers to.
            await conn.execute("SET session_replication_role = replica")
        run = secrets.token_hex(4)
        for first in range(0, count, BATCH):
            size = min(BATCH, count - first)
            async with conn.transaction():
                counter = await conn.fetchval(_LOCK, merchant.merchant_id, size * _IDS)
                if counter is None:
                    raise BenchError("The merchant of the measurement no longer exists.")
                now = truncate(datetime.now(UTC))
                text = now.isoformat(timespec="milliseconds")[:-6] + "Z"
                await conn.execute(_ROWS, merchant.merchant_id, size, milliseconds(now), counter, run, text, first, now)
                for statement in statements:
                    await conn.execute(statement, merchant.merchant_id, now)
            on_stored(size)

    database.with_connection(work)
    database.execute("VACUUM (ANALYZE) payouts, transfers, events, idempotency_keys, accounts, worlds")
