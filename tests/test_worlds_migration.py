"""Migrations keep each merchant's world, and older snapshots can still be restored."""

import asyncio
import importlib
import pkgutil
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import asyncpg

from sandbox.db import migrations
from sandbox.db.engine import transaction
from sandbox.worlds.store import restore_world
from tests.harness.work import pooled
from tests.harness.world import Stack

MIGRATION = "sandbox_2026_11_22t08_00_00_000000"
DUE_TIMES_OF_SALES = "sandbox_2026_11_24t02_45_00_000000"
FIRST = str(uuid.UUID(int=1))
AT = datetime(2031, 1, 1, tzinfo=UTC)


def statements(name: str) -> tuple[str, ...]:
    # Those without it change only tables that these tests do not use.
    sql: tuple[str, ...] = getattr(importlib.import_module(f"{migrations.__name__}.{name}"), "STATEMENTS", ())
    return sql


async def execute(url: str, *commands: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        for command in commands:
            await conn.execute(command)
    finally:
        await conn.close()


async def migrate_before(url: str, migration: str) -> None:
    names = sorted(module.name for module in pkgutil.iter_modules(migrations.__path__))
    # The first migration grants access to Piccolo's own table, so that table must exist.
    await execute(url, "CREATE TABLE migration ()", *(sql for name in names if name < migration for sql in statements(name)))


async def migrate_and_check(url: str) -> None:
    await migrate_before(url, MIGRATION)
    frozen, running, snapshot = (str(uuid.UUID(int=number)) for number in (1, 2, 3))
    await execute(
        url,
        f"""
        INSERT INTO merchants (merchant_id, name, seed, ipn_secret, webhook_secret, created_at, id_sequence, clock_frozen_at,
            clock_offset, default_scenario, approvals_expire_after, review_threshold, rate_limit)
        VALUES ('{frozen}', 'F', 7, '', '', now(), 1024, '{AT}', '0', 'pending', '1 minute', 5, 60),
            ('{running}', 'R', NULL, '', '', now(), 0, NULL, '2 hours', 'success', NULL, NULL, NULL)
        """,
        f"""
        INSERT INTO accounts (merchant_id, account, balance, version, updated_at) VALUES ('{frozen}', 'AVAILABLE', 5, 1, now())
        """,
        f"""
        INSERT INTO snapshots (merchant_id, id, name, rows, size, id_sequence, clock_frozen_at, clock_offset, default_scenario,
            approvals_expire_after, review_threshold, clock_at, created_at)
        VALUES ('{frozen}', '{snapshot}', 'S', 1, 9, 512, NULL, '1 hour', 'failed', NULL, 9, '{AT}', now())
        """,
        f"""
        INSERT INTO snapshot_rows (merchant_id, snapshot_id, table_name, part, accounts)
        SELECT merchant_id, '{snapshot}', 'accounts', 0, ARRAY[a] FROM accounts a
        """,
    )
    for _ in range(2):  # a migration can be interrupted after its last statement and run again
        await execute(url, *statements(MIGRATION))
    async with pooled(url, 1), transaction(running, as_database_owner=True) as conn:
        world = "SELECT * FROM worlds WHERE merchant_id = $1"
        assert dict(await conn.fetchrow(world, running) or {}) == {
            "merchant_id": uuid.UUID(running), "seed": None, "id_sequence": 0, "clock_frozen_at": None,
            "clock_offset": timedelta(hours=2), "default_scenario": "success", "approvals_expire_after": None,
            "review_threshold": None,
        }  # fmt: skip
        assert dict(await conn.fetchrow(world, frozen) or {}) == {
            "merchant_id": uuid.UUID(frozen), "seed": 7, "id_sequence": 1024, "clock_frozen_at": AT,
            "clock_offset": timedelta(), "default_scenario": "pending", "approvals_expire_after": timedelta(minutes=1),
            "review_threshold": Decimal(5),
        }  # fmt: skip
        await conn.execute("UPDATE accounts SET balance = 7 WHERE merchant_id = $1", frozen)
        restored = await restore_world(conn, frozen, snapshot)
        assert restored is not None
        assert (restored.name, restored.rows, restored.clock.offset) == ("S", 2, timedelta(hours=1))
        assert await conn.fetchval("SELECT balance FROM accounts WHERE merchant_id = $1", frozen) == 5
        assert dict(await conn.fetchrow(world, frozen) or {}) == {
            "merchant_id": uuid.UUID(frozen), "seed": 7, "id_sequence": 512, "clock_frozen_at": None,
            "clock_offset": timedelta(hours=1), "default_scenario": "failed", "approvals_expire_after": None,
            "review_threshold": Decimal(9),
        }  # fmt: skip
        assert await conn.fetchval("SELECT rate_limit FROM merchants WHERE merchant_id = $1", frozen) == 60


async def migrate_sales_and_check(url: str) -> None:
    await migrate_before(url, DUE_TIMES_OF_SALES)
    # By id: recorded at 10:00 sharp, between the runs, reconciled at 10:30 sharp and before it, paid.
    rows = [
        ("10:00", None, True, False), ("10:59:59", None, True, False), ("09:00", "10:30", False, True),
        ("09:00", "10:29", False, True), ("09:00", "10:29", False, False),
    ]  # fmt: skip
    await execute(
        url,
        f"""
        INSERT INTO merchants (merchant_id, name, ipn_secret, webhook_secret, created_at) VALUES ('{FIRST}', 'F', '', '', now())
        """,
        f"INSERT INTO worlds (merchant_id) VALUES ('{FIRST}')",
        f"""
        INSERT INTO users (merchant_id, id, name, vendor_user_id, earned, spent, credited, advances, finals, requested,
            approved, paid, version, created_at, updated_at)
        VALUES ('{FIRST}', '{FIRST}', 'A', 'A', 0, 0, 0, 0, 0, 0, 0, 0, 0, now(), now())
        """,
        *(
            f"""
            INSERT INTO sales (merchant_id, id, user_id, brand, earning, status, advance_due, final_due, created_at,
                reconciled_at)
            VALUES ('{FIRST}', '{uuid.UUID(int=number)}', '{FIRST}', 'B', 1, '{"APPROVED" if reconciled else "PENDING"}',
                {advance}, {final}, '2031-01-01 {created}Z', {f"'2031-01-01 {reconciled}Z'" if reconciled else "NULL"})
            """
            for number, (created, reconciled, advance, final) in enumerate(rows)
        ),
        f"""
        INSERT INTO snapshots (merchant_id, id, name, rows, size, clock_at, created_at)
        VALUES ('{FIRST}', '{FIRST}', 'S', 1, 9, '{AT}', now())
        """,
        *(
            f"""
            INSERT INTO snapshot_rows (merchant_id, snapshot_id, table_name, part, {table})
            SELECT '{FIRST}', '{FIRST}', '{table}', 0, array_agg(t) FROM {table} t
            """
            for table in ("worlds", "users", "sales")
        ),
    )
    for _ in range(2):
        await execute(url, *statements(DUE_TIMES_OF_SALES))
    async with pooled(url, 1), transaction(FIRST, as_database_owner=True) as conn:
        for _ in range(2):  # the rows of the table, then those of the snapshot
            found = await conn.fetch("SELECT due_at FROM sales WHERE merchant_id = $1 ORDER BY id", FIRST)
            times = [None if due_at is None else f"{due_at:%H:%M:%S}" for (due_at,) in found]
            assert times == ["11:00:00", "11:00:00", "11:30:00", "10:30:00", None]
            assert await restore_world(conn, FIRST, FIRST) is not None


def in_new_database(stack: Stack, check: Callable[[str], None]) -> None:
    """Call `check` with the URL of a new, empty database, and then drop it."""
    name = f"before_{uuid.uuid4().hex}"
    stack.execute(f"CREATE DATABASE {name}")
    try:
        check(re.sub(r"/[^/?]*(?=\?|$)", f"/{name}", stack.database_url, count=1))
    finally:
        stack.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_the_migration_keeps_worlds_settings_and_snapshots(stack: Stack) -> None:
    in_new_database(stack, lambda url: asyncio.run(migrate_and_check(url)))


def test_open_sales_are_due_at_the_run_after_they_were_recorded_or_reconciled(stack: Stack) -> None:
    in_new_database(stack, lambda url: asyncio.run(migrate_sales_and_check(url)))
