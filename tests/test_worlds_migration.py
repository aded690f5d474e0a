"""The migration to the `worlds` table keeps each merchant's world, and older snapshots can still be restored."""

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
from sandbox.db.engine import close_pool, open_pool, transaction
from sandbox.worlds.store import restore_world
from tests.harness.world import Stack

MIGRATION = "sandbox_2026_11_22t08_00_00_000000"
AT = datetime(2031, 1, 1, tzinfo=UTC)


def statements(name: str) -> tuple[str, ...]:
    sql: tuple[str, ...] = importlib.import_module(f"{migrations.__name__}.{name}").STATEMENTS
    return sql


async def execute(url: str, *commands: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        for command in commands:
            await conn.execute(command)
    finally:
        await conn.close()


async def migrate_and_check(url: str) -> None:
    names = sorted(module.name for module in pkgutil.iter_modules(migrations.__path__))
    # The first migration grants access to Piccolo's own table, so that table must exist.
    await execute(url, "CREATE TABLE migration ()", *(sql for name in names if name < MIGRATION for sql in statements(name)))
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
    await open_pool(url, 1)
    try:
        async with transaction(running, as_database_owner=True) as conn:
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
    finally:
        await close_pool()


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
