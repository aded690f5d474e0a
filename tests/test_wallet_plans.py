"""Lists of a wallet and of sales read what they show and no more, however many rows others have, with any plan that is kept."""

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

ROWS = 20_000
NOW = datetime.now(UTC)
REASONS = [
    "WALLET_EARN", "WALLET_SPEND", "WALLET_CREDIT", "WALLET_ADVANCE", "WALLET_FINAL", "WALLET_CLAWBACK", "WALLET_PAYOUT",
    "WALLET_GIVE_BACK",
]  # fmt: skip
STATUSES = ["PENDING", "APPROVED", "DECLINED"]


@pytest.fixture(scope="module")
def crowded(stack: Stack) -> Iterator[tuple[World, str]]:
    """A merchant, frozen so that no run pays its sales, with a user of many credits and sales."""
    with World.create(stack) as world:
        world.post("/sandbox/v1/clock/freeze")
        user_id = make_user(world)
        # Aggregated already, and before there is anything to read: a worker would begin at once, and make this row itself.
        world.stack.execute(
            "INSERT INTO vendor_cursors (merchant_id, page, failures, next_poll_at, last_id, updated_at) "
            "VALUES ($1, 1, 0, $2, $3, $2)", world.merchant_id, NOW, MAX_ID,
        )  # fmt: skip
        for statement in (
            "INSERT INTO transfers (merchant_id, id, debit_account, credit_account, amount, debit_balance_after, "
            "credit_balance_after, reason, description, created_at) SELECT $1, uuidv7(), 'USER_FUNDS', 'WALLET:' || $2::uuid, "
            "1, 0, 0, 'WALLET_CREDIT', '', $3 FROM generate_series(1, $4::int)",
            "INSERT INTO sales (merchant_id, id, user_id, brand, earning, status, advance_due, final_due, created_at) "
            "SELECT $1, uuidv7(), $2, 'b', 10, 'PENDING', true, false, $3 FROM generate_series(1, $4::int)",
            "INSERT INTO user_transactions (merchant_id, id, user_id, type, amount, transfer_id, created_at) "
            "SELECT $1, uuidv7(), $2, 'EARNED', 1, uuidv7(), $3 FROM generate_series(1, $4::int)",
        ):
            world.stack.execute(statement, world.merchant_id, user_id, NOW, ROWS)
        yield world, user_id


TEN = [f"00000000-0000-7000-8000-{number:012d}" for number in range(10)]
# Each with its arguments behind the merchant's id; USER stands for the user's.
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
    "advances due": (payments._DUE["ADVANCE"], (MIN_ID, 100)),
    "finals due": (payments._DUE["FINAL"], (MIN_ID, 100)),
    "advances tried": (payments._RECORD_ATTEMPTS["ADVANCE"], (TEN, [1] * 10, [None] * 10)),
    "finals tried": (payments._RECORD_ATTEMPTS["FINAL"], (TEN, [1] * 10, [None] * 10)),
    "reconciled": (sales._RECONCILE, (NOW, TEN, ["APPROVED"] * 10)),
}


@pytest.mark.parametrize("is_analyzed", [False, True], ids=["before statistics", "with statistics"])
@pytest.mark.parametrize("name", QUERIES)
def test_rows_read_do_not_grow_with_the_table(crowded: tuple[World, str], name: str, is_analyzed: bool) -> None:
    """In a database that was never analyzed and in one that was, with the generic plan that prepared statements adopt."""
    world, user_id = crowded
    statement, arguments = QUERIES[name]
    filled = [user_id if argument == "USER" else argument for argument in arguments]
    plan = asyncio.run(explained(world, statement, filled, is_analyzed))
    assert rows_read(plan) < 1000, json.dumps(plan, indent=1)


async def explained(world: World, statement: str, arguments: list[Any], is_analyzed: bool) -> Any:
    """The generic plan of a statement, and what it read; all of it taken back."""
    conn = await asyncpg.connect(world.stack.database_url)
    try:
        await conn.execute("BEGIN")
        if is_analyzed:
            await conn.execute("ANALYZE transfers, sales, user_transactions, sale_payments")
        else:
            # What autovacuum may have learned meanwhile is forgotten again.
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
        told = await conn.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) EXECUTE query ({values})")
        return json.loads(told)[0]["Plan"]
    finally:
        await conn.execute("ROLLBACK")
        await conn.execute("DEALLOCATE ALL")
        await conn.close()


def literal(value: Any) -> str:
    """A value in SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return "'{" + ",".join("NULL" if item is None else str(item) for item in value) + "}'"
    return str(value) if isinstance(value, int) else f"'{value}'"


def rows_read(plan: Any) -> int:
    """The rows that the nodes of a plan which read tables and indexes took into their hands."""
    rows = sum(plan.get(name, 0) for name in ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck"))
    own = rows * plan["Actual Loops"]
    read: int = own if "Scan" in plan["Node Type"] else 0
    return read + sum(rows_read(part) for part in plan.get("Plans", ()))
