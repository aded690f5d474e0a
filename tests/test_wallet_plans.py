"""Queries on wallets and sales read a bounded number of rows, however large the tables, even with a generic plan."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from sandbox.domain.ids import MAX_ID, MIN_ID
from sandbox.sales import payments
from sandbox.sales import service as sales
from sandbox.users import history
from tests.harness.world import Stack, World
from tests.test_users import make_user

ROW_COUNT = 20_000
NOW = datetime.now(UTC)
REASONS = [
    "WALLET_EARN", "WALLET_SPEND", "WALLET_CREDIT", "WALLET_ADVANCE", "WALLET_FINAL", "WALLET_CLAWBACK", "WALLET_PAYOUT",
    "WALLET_GIVE_BACK",
]  # fmt: skip
STATUSES = ["PENDING", "APPROVED", "DECLINED"]


@pytest.fixture(scope="module")
def merchant_with_many_rows(stack: Stack) -> Iterator[tuple[World, str]]:
    """Yield a merchant with a user who has many credits and sales. It is frozen, so that no run pays the sales."""
    with World.create(stack) as world:
        world.post("/sandbox/v1/clock/freeze")
        user_id = make_user(world)
        # Set the cursor past all rows, before there are any: otherwise a worker starts to aggregate them and inserts this row.
        world.stack.execute(
            "INSERT INTO vendor_cursors (merchant_id, page, failures, next_poll_at, last_id, updated_at) "
            "VALUES ($1, 1, 0, $2, $3, $2)", world.merchant_id, NOW, MAX_ID,
        )  # fmt: skip
        for statement in (
            "INSERT INTO transfers (merchant_id, id, debit_account, credit_account, amount, debit_balance_after, "
            "credit_balance_after, reason, description, created_at) SELECT $1, uuidv7(), 'USER_FUNDS', 'WALLET:' || $2::uuid, "
            "1, 0, 0, 'WALLET_CREDIT', '', $3 FROM generate_series(1, $4::int)",
            "INSERT INTO sales (merchant_id, id, user_id, brand, earning, status, advance_due, final_due, due_at, created_at) "
            "SELECT $1, uuidv7(), $2, 'b', 10, 'PENDING', true, false, $3, $3 FROM generate_series(1, $4::int)",
            "INSERT INTO user_transactions (merchant_id, id, user_id, type, amount, transfer_id, created_at) "
            "SELECT $1, uuidv7(), $2, 'EARNED', 1, uuidv7(), $3 FROM generate_series(1, $4::int)",
            # With only the few payments of other tests, the planner would rightly scan that whole table for each sale.
            "INSERT INTO sale_payments (merchant_id, sale_id, kind, amount, transfer_id, created_at) "
            "SELECT merchant_id, id, 'ADVANCE', 1, uuidv7(), $3 FROM sales WHERE merchant_id = $1 AND user_id = $2 LIMIT $4",
        ):
            world.stack.execute(statement, world.merchant_id, user_id, NOW, ROW_COUNT)
        yield world, user_id


TEN = [f"00000000-0000-7000-8000-{number:012d}" for number in range(10)]
# Statements and their arguments after the merchant's id. USER is replaced by the user's id.
QUERIES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "history": (history._HISTORY, ("USER", MAX_ID, MIN_ID, 21, REASONS)),
    "history of a payout": (history._HISTORY_BY_PAYOUT, ("USER", MAX_ID, MIN_ID, 21, MAX_ID)),
    "transactions": (
        history._TRANSACTIONS,
        ("USER", MAX_ID, MIN_ID, 21, ["EARNED", "SPENT", "PAYOUT", "PAID_OUT"], REASONS[2:6]),
    ),
    "transactions of a rare type": (history._TRANSACTIONS, ("USER", MAX_ID, MIN_ID, 21, [], ["WALLET_ADVANCE"])),
    "one sale": (sales._GET, (MAX_ID,)),
    "sales": (sales._LIST, (STATUSES, MAX_ID, MIN_ID, 21)),
    "sales of a user": (sales._LIST_BY_USER, (STATUSES, MAX_ID, MIN_ID, 21, "USER")),
    "sales to reconcile": (sales._TO_RECONCILE, (TEN,)),
    "open advances": (payments._OPEN["ADVANCE"], (MIN_ID, 100)),
    "open finals": (payments._OPEN["FINAL"], (MIN_ID, 100)),
    "sales due": (payments._DUE, (NOW, 100)),
    "record advance attempts": (payments._RECORD_ATTEMPTS["ADVANCE"], (TEN, [1] * 10, [None] * 10, NOW)),
    "record final attempts": (payments._RECORD_ATTEMPTS["FINAL"], (TEN, [1] * 10, [None] * 10, NOW)),
    "reconcile sales": (sales._RECONCILE, (NOW, TEN, ["APPROVED"] * 10, NOW)),
}


@pytest.mark.parametrize("is_analyzed", [False, True], ids=["before statistics", "with statistics"])
@pytest.mark.parametrize("name", QUERIES)
def test_rows_read_do_not_grow_with_the_table(merchant_with_many_rows: tuple[World, str], name: str, is_analyzed: bool) -> None:
    """Check the generic plan, which prepared statements end up with, both with and without table statistics."""
    world, user_id = merchant_with_many_rows
    statement, arguments = QUERIES[name]
    values = [user_id if argument == "USER" else argument for argument in arguments]
    plan = asyncio.run(explain(world, statement, values, is_analyzed))
    assert rows_read(plan) < 1000, json.dumps(plan, indent=1)


async def explain(world: World, statement: str, arguments: list[Any], is_analyzed: bool) -> Any:
    """Run a statement with its generic plan, roll it back, and return the plan with the numbers of rows read."""
    conn = await asyncpg.connect(world.stack.database_url)
    try:
        await conn.execute("BEGIN")
        if is_analyzed:
            await conn.execute("ANALYZE transfers, sales, user_transactions, sale_payments")
        else:
            # Delete any statistics that autovacuum has collected in the meantime.
            await conn.execute(
                "DELETE FROM pg_statistic WHERE starelid IN ('transfers'::regclass, 'sales'::regclass, "
                "'user_transactions'::regclass, 'sale_payments'::regclass)"
            )
            await conn.execute(
                "UPDATE pg_class SET relpages = 0, reltuples = -1 WHERE relname IN ('transfers', 'sales', 'user_transactions', "
                "'sale_payments')"
            )
        await conn.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await conn.execute(f"PREPARE query AS {statement}")
        values = ", ".join(literal(argument) for argument in (world.merchant_id, *arguments))
        explained = await conn.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) EXECUTE query ({values})")
        return json.loads(explained)[0]["Plan"]
    finally:
        await conn.execute("ROLLBACK")
        await conn.execute("DEALLOCATE ALL")
        await conn.close()


def literal(value: Any) -> str:
    """Return a value as an SQL literal."""
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return "'{" + ",".join("NULL" if item is None else str(item) for item in value) + "}'"
    return str(value) if isinstance(value, int) else f"'{value}'"


def rows_read(plan: Any) -> int:
    """Return the number of rows that a plan's scans of tables and indexes read, including those that they filtered out."""
    rows = sum(plan.get(name, 0) for name in ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck"))
    total = rows * plan["Actual Loops"]
    read: int = total if "Scan" in plan["Node Type"] else 0
    return read + sum(rows_read(child) for child in plan.get("Plans", ()))
