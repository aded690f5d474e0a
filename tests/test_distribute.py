"""`psp distribute`: which tables it distributes, in which order, and what it refuses."""

import json
from dataclasses import replace

import asyncpg
import pytest

from sandbox.infrastructure.db.distributed.distributed_tables import SandboxTable, in_order, read_content, read_tables
from sandbox.infrastructure.db.engine import APPLICATION_ROLE
from sandbox.worlds.merchants.tables import TABLES, WORLD
from tests.harness.command import invoke
from tests.harness.world import Stack, World


def table(oid: int, name: str, *, by_merchant: bool = True) -> SandboxTable:
    return SandboxTable(oid, name, by_merchant, 0, is_distributed=False)


async def test_all_tables_are_distributed_those_of_merchants_by_merchant(stack: Stack) -> None:
    """Also in an order that foreign keys allow: the reverse of the order of deletion is one of several."""
    conn = await asyncpg.connect(stack.database_url)
    try:
        tables = await read_tables(conn, APPLICATION_ROLE)
        found = await conn.fetch(
            "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        references = await conn.fetch(
            "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint WHERE contype = 'f'"
        )
    finally:
        await conn.close()
    names = [table.name for table in tables]
    assert sorted(names) == sorted(record[0] for record in found)
    by_merchant = [table.name for table in tables if table.by_merchant]
    assert set(TABLES) <= set(by_merchant)
    assert "migration" not in by_merchant
    assert names[-len(by_merchant) :] == by_merchant
    assert by_merchant[0] == "merchants"
    assert [tuple(record) for record in references if names.index(record[0]) < names.index(record[1])] == []
    # A snapshot's columns have the types of the rows of all tables of a world.
    assert [name for name in WORLD if names.index(name) > names.index("snapshot_rows")] == []
    assert not any(table.is_distributed for table in tables)


async def test_every_table_has_a_checksum(stack: Stack, world: World) -> None:
    """Also of the rows of snapshots. It does not depend on the order of the rows."""
    world.create_payout("0001")
    world.post("/sandbox/v1/snapshots", {"name": "all"})
    conn = await asyncpg.connect(stack.database_url)
    try:
        tables = await read_tables(conn, APPLICATION_ROLE)
        for table in tables:
            assert (await read_content(conn, table)).rows >= 0
        async with conn.transaction():
            await conn.execute("CREATE TEMPORARY TABLE t (n integer, text text)")
            found = replace(tables[0], name="t", oid=await conn.fetchval("SELECT 't'::regclass::oid"))
            contents = []
            for rows in ("(1, 'a'), (2, NULL)", "(2, NULL), (1, 'a')", "(2, 'a'), (1, NULL)"):
                await conn.execute(f"TRUNCATE t; INSERT INTO t VALUES {rows}")
                contents.append(await read_content(conn, found))
    finally:
        await conn.close()
    assert contents[0] == contents[1] != contents[2]
    assert [content.rows for content in contents] == [2, 2, 2]


def test_the_order_does_not_depend_on_the_order_of_creation() -> None:
    tables = [table(4, "merchants"), table(2, "a"), table(3, "b"), table(1, "keys", by_merchant=False)]
    for needs in ([(2, 3)], [(2, 3), (3, 3), (2, 99), (99, 1)]):
        assert [found.name for found in in_order(tables, needs)] == ["keys", "merchants", "b", "a"]
    assert [found.name for found in in_order(tables, [(3, 2)])] == ["keys", "merchants", "a", "b"]


def test_plain_postgresql_is_refused(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", stack.database_url)
    for option in ([], ["--dry-run"]):
        refused = invoke("distribute", *option)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr == (
            "psp distribute: This server does not have Citus. Install it on all nodes, and add citus to "
            "shared_preload_libraries.\n"
        )
    refused = invoke("distribute", "--json")
    assert (refused.exit_code, json.loads(refused.stderr)["code"]) == (1, "REFUSED")


def test_a_missing_url_is_a_usage_error_and_an_unreachable_database_is_named(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("", "mysql://localhost/sandbox"):
        monkeypatch.setenv("DATABASE_URL", value)
        refused = invoke("distribute")
        assert refused.exit_code == 2
        assert "DATABASE_URL" in refused.stderr
    monkeypatch.setenv("DATABASE_URL", "postgresql://somebody:a-password@127.0.0.1:1/sandbox")
    refused = invoke("distribute")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("psp distribute: Cannot connect to DATABASE_URL: ")
    assert "a-password" not in refused.stderr


@pytest.mark.parametrize("shards", ["0", "129", "many"])
def test_the_number_of_shards_is_bounded(shards: str) -> None:
    assert invoke("distribute", "--shards", shards).exit_code == 2
