"""The hot queries read by index, on tables large enough for a scan to show."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import asyncpg
import pytest

from sandbox.aggregator import service as aggregator
from sandbox.aggregator.store import DUE_OWN
from sandbox.balance import service as balance
from sandbox.bulk_credit import process
from sandbox.bulk_credit import service as bulk_credit
from sandbox.bulk_credit.model import ITEM_STATUSES
from sandbox.control import passage
from sandbox.feed import service as feed
from sandbox.ids import LARGEST_ID, SMALLEST_ID
from sandbox.payouts import service as payouts
from sandbox.payouts import waiting
from sandbox.payouts.model import pair_of
from sandbox.payouts.states import STATUSES
from sandbox.webhooks import deliveries, outbox
from sandbox.work import store
from tests.harness.world import Stack, World
from worker import sweep

ROWS = 20_000
NOW = datetime.now(UTC)
BOUNDS = (LARGEST_ID, SMALLEST_ID)


@pytest.fixture(scope="module")
def crowded(stack: Stack) -> Iterator[World]:
    """A merchant with many settled payouts, in a database that knows its statistics."""
    world = World.create(stack, opening_balance="1.00", webhook_url="http://127.0.0.1:9/none")

    async def fill() -> None:
        conn = await asyncpg.connect(stack.database_url)
        try:
            await insert(conn)
        finally:
            await conn.close()

    async def insert(conn: "asyncpg.Connection[asyncpg.Record]") -> None:
        await conn.execute(
            """
            INSERT INTO payouts (merchant_id, id, merchant_reference, amount, currency, dest_type, bank_code, account_number,
                status, scenario, psp_reference, attempts, metadata, step, changes, request_id, created_at, updated_at)
            SELECT $1, uuidv7(), 'plan-' || n, 1, 'PKR', 'BANK', 'HBL', '1234567890', 'SUCCESS', 'success', 'P' || n, 1,
                '{"order": "17"}', 2, 3, 'r', $2, $2 FROM generate_series(1, $3::int) n
            """,
            world.merchant_id, NOW, ROWS,
        )  # fmt: skip
        await conn.execute(
            "INSERT INTO payout_metadata (merchant_id, pair, payout_id) SELECT merchant_id, $2, id FROM payouts "
            "WHERE merchant_id = $1",
            world.merchant_id, pair_of("order", "17"),
        )  # fmt: skip
        await conn.execute(
            """
            INSERT INTO transfers (merchant_id, id, debit_account, credit_account, amount, debit_balance_after,
                credit_balance_after, reason, payout_id, description, created_at)
            SELECT merchant_id, id, 'LOCKED', 'SETTLEMENT', 1, 0, 0, 'PAYOUT_SETTLE', id, '', $2 FROM payouts
            WHERE merchant_id = $1
            """,
            world.merchant_id, NOW,
        )  # fmt: skip
        await conn.execute(
            """
            INSERT INTO events (merchant_id, id, type, body, payout_id, change, to_status, cause, request_id, created_at)
            SELECT merchant_id, id, 'payout.created', '{}', id, 0, 'PENDING', 'api', 'r', $2 FROM payouts WHERE merchant_id = $1
            """,
            world.merchant_id, NOW,
        )  # fmt: skip
        await conn.execute(
            """
            INSERT INTO idempotency_keys (merchant_id, key, fingerprint, status, body, expires_at)
            SELECT merchant_id, id::text, '\\x00', 201, '\\x00', $2::timestamptz + interval '1 day' FROM payouts
            WHERE merchant_id = $1
            """,
            world.merchant_id, NOW,
        )  # fmt: skip
        await conn.execute(
            """
            INSERT INTO webhook_deliveries (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, created_at,
                updated_at)
            SELECT v.merchant_id, v.id, v.id, e.id, 'SUCCEEDED', 1, 1, $2, $2 FROM events v JOIN webhook_endpoints e
                ON e.merchant_id = v.merchant_id WHERE v.merchant_id = $1
            """,
            world.merchant_id, NOW,
        )  # fmt: skip
        # Aggregated already, so that the workers leave it alone.
        await conn.execute(
            "INSERT INTO vendor_cursors (merchant_id, page, failures, next_poll_at, last_id, updated_at) "
            "VALUES ($1, 1, 0, $2, $3, $2)",
            world.merchant_id, NOW, LARGEST_ID,
        )  # fmt: skip
        await conn.execute(
            """
            INSERT INTO users (merchant_id, id, name, vendor_user_id, earned, spent, credited, advances, finals, requested,
                approved, paid, version, created_at, updated_at)
            VALUES ($1, $2, 'U', '12', 0, 0, 0, 0, 0, 0, 0, 0, 0, $3, $3)
            """,
            world.merchant_id, SMALLEST_ID, NOW,
        )  # fmt: skip
        await conn.execute(
            """
            INSERT INTO user_transactions (merchant_id, id, user_id, type, amount, transfer_id, created_at)
            SELECT merchant_id, id, $3, 'EARNED', 1, id, $2 FROM payouts WHERE merchant_id = $1
            """,
            world.merchant_id, NOW, SMALLEST_ID,
        )  # fmt: skip
        await conn.execute(
            """
            INSERT INTO vendor_transactions (merchant_id, vendor_id, user_id, type, amount, created_at)
            SELECT merchant_id, id::text, id::text, 'payout', 1, $2 FROM payouts WHERE merchant_id = $1
            """,
            world.merchant_id, NOW,
        )  # fmt: skip
        await conn.execute(
            """
            INSERT INTO vendor_balances (merchant_id, user_id, id, earned, spent, payout, paid_out, updated_at)
            SELECT merchant_id, id::text, id, 0, 0, 1, CASE WHEN n % 100 = 0 THEN 0 ELSE 1 END, $2
            FROM (SELECT *, row_number() OVER () AS n FROM payouts WHERE merchant_id = $1) p
            """,
            world.merchant_id, NOW,
        )  # fmt: skip
        await conn.execute(
            "INSERT INTO bulk_credits (merchant_id, id, status, total, invalid, duplicates, succeeded, failed, request_id, "
            "created_at, updated_at) VALUES ($1, $2, 'COMPLETED', $4, 0, 0, $4, 0, 'r', $3, $3)",
            world.merchant_id, SMALLEST_ID, NOW, ROWS,
        )  # fmt: skip
        await conn.execute(
            """
            INSERT INTO bulk_credit_items (merchant_id, activity_id, line, user_id, amount, status, transfer_id)
            SELECT merchant_id, $2, row_number() OVER (), $2::uuid::text, '1.00', 'SUCCEEDED', id FROM payouts
            WHERE merchant_id = $1
            """,
            world.merchant_id, SMALLEST_ID,
        )  # fmt: skip
        await conn.execute("VACUUM (ANALYZE)")

    asyncio.run(fill())
    with world:
        yield world


QUERIES = {
    "claim": (store._READ, (["AVAILABLE", "LOCKED"], ["a", "b"], ["c", "d"], NOW)),
    "payouts due": (store._PAYOUTS_DUE, (NOW, 256)),
    "payouts by id": (store._PAYOUTS_BY_ID, ([LARGEST_ID],)),
    "one payout": (payouts._GET, (LARGEST_ID,)),
    "list": (payouts._LIST_ALL, (*BOUNDS, 21)),
    "list of a rare status": (payouts._LIST, (["FAILED"], ["WALLET"], *BOUNDS, 21)),
    "list of a frequent status": (payouts._LIST, (list(STATUSES), ["BANK"], *BOUNDS, 21)),
    "list of a reference": (payouts._LIST_OF_REFERENCE, ("plan-1", list(STATUSES), ["BANK"], *BOUNDS, None, "{}")),
    "list of a reference and a pair of metadata": (
        payouts._LIST_OF_REFERENCE,
        ("plan-1", list(STATUSES), ["BANK"], *BOUNDS, None, '{"order": "17"}'),
    ),
    "list of a pair of metadata": (
        payouts._LIST_OF_METADATA,
        (pair_of("order", "17"), list(STATUSES), ["BANK"], *BOUNDS, 21, '{"order": "17"}', None),
    ),
    "timeline": (payouts._TIMELINE, (LARGEST_ID,)),
    "balance": (balance._BALANCE, ()),
    "history": (balance._HISTORY, (["TOP_UP", "PAYOUT_SETTLE"], *BOUNDS, 21)),
    "history of a payout": (balance._HISTORY_OF_PAYOUT, (["TOP_UP"], *BOUNDS, 21, LARGEST_ID)),
    "rows of a bulk credit": (bulk_credit._ITEMS, (SMALLEST_ID, list(ITEM_STATUSES), ROWS - 50, 21)),
    "rows of a bulk credit that failed": (bulk_credit._ITEMS, (SMALLEST_ID, ["FAILED"], 1, 21)),
    "rows to credit": (process._ROWS, (SMALLEST_ID, 100)),
    "vendor feed": (feed._PAGE, (SMALLEST_ID, LARGEST_ID, 10_000, 100)),
    "aggregated balance": (aggregator._BALANCE, (LARGEST_ID,)),
    "who waits for money": (aggregator._WAITING, (*BOUNDS, 21)),
    "what falls due next": (passage._NEXT_DUE, ()),
    "payouts waited for": (waiting._READ, ([LARGEST_ID],)),
    "states that have passed": (waiting._PASSED, (LARGEST_ID, ["PROCESSING"], "payout.reinitiated")),
    "endpoints that are posted to": (outbox._BUSY, (NOW, NOW)),
    "deliveries with a rare status": (deliveries._LIST, (*BOUNDS, 21, None, ["FAILED"])),
    "deliveries with any status": (deliveries._LIST, (*BOUNDS, 21, None, list(deliveries.STATUSES))),
    "deliveries due": (outbox._CLAIM, (NOW, NOW, [], [], 128, NOW)),
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_request_or_worker_query_never_scans(crowded: World, name: str) -> None:
    statement, arguments = QUERIES[name]
    assert_no_scan(crowded.stack, statement, crowded.merchant_id, *arguments)


def test_the_sweep_never_scans_payouts_or_deliveries(crowded: World) -> None:
    assert_no_scan(crowded.stack, sweep._DUE, NOW, 1000)
    assert_no_scan(crowded.stack, sweep._LEFT_BEHIND, 1000)


def test_finding_the_feeds_to_read_looks_at_one_row_of_a_merchant(crowded: World) -> None:
    assert_no_scan(crowded.stack, DUE_OWN, NOW, 64)


def assert_no_scan(stack: Stack, statement: str, *arguments: object) -> None:
    """EXPLAIN the statement, and find no sequential scan of a table that grows and no read of many rows."""

    async def explain() -> str:
        conn = await asyncpg.connect(stack.database_url)
        try:
            transaction = conn.transaction()
            await transaction.start()
            lines = await conn.fetch("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) " + statement, *arguments)
            await transaction.rollback()
            return "\n".join(line[0] for line in lines)
        finally:
            await conn.close()

    plan = asyncio.run(explain())
    tables = (
        "payouts",
        "payout_metadata",
        "transfers",
        "events",
        "webhook_deliveries",
        "webhook_attempts",
        "idempotency_keys",
        "bulk_credit_items",
    )
    for table in (*tables, "user_transactions", "vendor_transactions", "vendor_balances"):
        assert f"Seq Scan on {table}" not in plan, plan
    for line in plan.splitlines():
        if "Rows Removed by Filter:" in line:
            assert int(line.rsplit(":", 1)[1]) < 1000, plan
