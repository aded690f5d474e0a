"""Rows that an earlier version did not credit, because they equal an earlier row, stay uncredited and say why."""

import asyncio
import pkgutil
import uuid

from sandbox.db import migrations
from sandbox.db.engine import transaction
from sandbox.worlds.store import restore_world
from tests.harness.work import pooled
from tests.harness.world import Stack
from tests.test_worlds_migration import execute, in_new_database, statements

MIGRATION = "sandbox_2026_11_24t02_40_00_000000"
M, FILE, SNAPSHOT = (str(uuid.UUID(int=number)) for number in (1, 2, 3))
COUNTS = "SELECT total, invalid, duplicates, succeeded FROM bulk_credits WHERE merchant_id = $1"
ITEMS = "SELECT line, status, error, same_as_line FROM bulk_credit_items WHERE merchant_id = $1 ORDER BY line"
CREDITED = (2, "SUCCEEDED", None, None)
OTHERS = [
    (3, "INVALID", "uuid: must be the id of a user", None),
    (12, "INVALID", "is the same as line 2, and was not credited", 2),
    (13, "INVALID", "is the same as line 12, and was not credited", 12),
]


async def migrate_and_check(url: str) -> None:
    names = sorted(module.name for module in pkgutil.iter_modules(migrations.__path__))
    # The first migration grants access to Piccolo's own table, so that table must exist.
    await execute(url, "CREATE TABLE migration ()", *(sql for name in names if name < MIGRATION for sql in statements(name)))
    await execute(
        url,
        f"""
        INSERT INTO merchants (merchant_id, name, ipn_secret, webhook_secret, created_at) VALUES ('{M}', 'M', '', '', now())
        """,
        f"INSERT INTO worlds (merchant_id) VALUES ('{M}')",
        f"""
        INSERT INTO bulk_credits (merchant_id, id, status, total, invalid, duplicates, succeeded, failed, request_id,
            created_at, updated_at) VALUES ('{M}', '{FILE}', 'COMPLETED', 4, 1, 2, 1, 0, 'r', now(), now())
        """,
        f"""
        INSERT INTO bulk_credit_items (merchant_id, activity_id, line, user_id, amount, status, error, transfer_id)
        VALUES ('{M}', '{FILE}', 2, '{M}', '2.50', 'SUCCEEDED', NULL, '{M}'),
            ('{M}', '{FILE}', 3, 'x', '1', 'INVALID', 'uuid: must be the id of a user', NULL),
            ('{M}', '{FILE}', 12, '{M}', '2.50', 'DUPLICATE', 'is the same as line 2', NULL),
            ('{M}', '{FILE}', 13, '{M}', '2.50', 'DUPLICATE', 'is the same as line 12', NULL)
        """,
        f"""
        INSERT INTO snapshots (merchant_id, id, name, rows, size, clock_at, created_at)
        VALUES ('{M}', '{SNAPSHOT}', 'S', 6, 9, now(), now())
        """,
        *(
            f"""
            INSERT INTO snapshot_rows (merchant_id, snapshot_id, table_name, part, {table})
            SELECT merchant_id, '{SNAPSHOT}', '{table}', 0, array_agg(t) FROM {table} t GROUP BY merchant_id
            """
            for table in ("worlds", "bulk_credits", "bulk_credit_items")
        ),
    )
    for _ in range(2):  # a migration can be interrupted after its last statement and run again
        await execute(url, *statements(MIGRATION))
    async with pooled(url, 1), transaction(M, as_database_owner=True) as conn:
        for is_restored in (False, True):
            if is_restored:
                await conn.execute("UPDATE bulk_credits SET invalid = 0 WHERE merchant_id = $1", M)
                await conn.execute("DELETE FROM bulk_credit_items WHERE merchant_id = $1", M)
                assert await restore_world(conn, M, SNAPSHOT) is not None
            assert [tuple(row) for row in await conn.fetch(COUNTS, M)] == [(4, 3, 2, 1)]
            assert [tuple(row) for row in await conn.fetch(ITEMS, M)] == [CREDITED, *OTHERS]


def test_the_migration_keeps_uncredited_rows_in_files_and_snapshots(stack: Stack) -> None:
    in_new_database(stack, lambda url: asyncio.run(migrate_and_check(url)))
