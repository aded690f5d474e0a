"""All SQL also works where the tables' names mean views, as on a distributed database: there, each shard has a schema of views.

A view has another row type than its table, no keys, no NOT NULL and no defaults, and COPY cannot write to it.
"""

import asyncio
import io
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from sandbox.infrastructure.db.copy_target import copy_target
from sandbox.infrastructure.db.engine import APPLICATION_ROLE, close_pool, connection, open_pool
from sandbox.infrastructure.db.functions import function_sources
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.payouts.directory.loader import load_directory
from sandbox.users.bulk_credit.service import BulkCreditService
from sandbox.webhooks.endpoints.service import EndpointService
from sandbox.worlds.bundles.columns import read_tables
from sandbox.worlds.bundles.reading import parse_bundle
from sandbox.worlds.bundles.service import BundleService
from sandbox.worlds.merchants.service import MerchantService
from sandbox.worlds.merchants.tables import TABLES
from sandbox.worlds.snapshots.service import TakeSnapshotBody, WorldService
from tests.harness.own_journal import OwnJournal
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.work import request_of, units_of_work
from tests.harness.world import Stack, World
from tests.test_bulk_credit_files import HEADER, store
from tests.test_reset_and_snapshots import fill, rows
from tests.test_users import make_user, summary
from tests.test_world_bundles import comparable, exported


@pytest.fixture
async def views(stack: Stack) -> AsyncIterator[str]:
    """Make each table's name mean a view in this process. Yield the views' schema. The servers still use the tables."""
    schema = f"views_{uuid.uuid4().hex}"
    conn = await asyncpg.connect(stack.database_url)
    try:
        tables = await conn.fetch("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        await conn.execute(f"CREATE SCHEMA {schema}; SET search_path = {schema}")
        for (table,) in tables:
            await conn.execute(f"CREATE VIEW {table} WITH (security_invoker = true) AS SELECT * FROM public.{table}")
        for source in function_sources().values():
            await conn.execute(source)
        grants = f"GRANT USAGE ON SCHEMA {schema} TO {APPLICATION_ROLE}; GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO"
        await conn.execute(f"{grants} {APPLICATION_ROLE}")
        await open_pool(f"{stack.database_url}&search_path={schema}", 2)
        yield schema
        await close_pool()
    finally:
        await conn.execute(f"DROP SCHEMA {schema} CASCADE")
        await conn.close()


def row_of_world(world: World) -> dict[str, Any]:
    (found,) = world.stack.execute("SELECT * FROM worlds WHERE merchant_id = $1", world.merchant_id)
    return {name: value for name, value in found.items() if name not in ("merchant_id", "id_sequence")}


async def test_a_snapshot_is_taken_and_restored_and_a_world_is_reset(world: World, receiver: Receiver, views: str) -> None:
    def stored_rows() -> dict[str, Any]:
        # The aggregator polls by the host's time, even if the merchant's clock is frozen.
        return {table: found for table, found in rows(world).items() if not table.startswith("vendor_")}

    fill(world, receiver)
    stored = await asyncio.to_thread(stored_rows)
    service = WorldService(units_of_work())
    taken = json.loads((await service.take_snapshot(request_of(world.merchant_id), TakeSnapshotBody(name="full"))).body)
    assert taken["rows"] > sum(map(len, stored.values()))

    assert (await service.reset(request_of(world.merchant_id))).status == 200
    assert (await asyncio.to_thread(stored_rows))["payouts"] == []
    with World.create(world.stack) as fresh:
        assert await asyncio.to_thread(row_of_world, world) == await asyncio.to_thread(row_of_world, fresh)

    for _ in range(2):  # the first restore inserts all rows, the second one keeps those that never change
        result = await service.restore_snapshot(request_of(world.merchant_id), taken["id"])
        assert (result.status, json.loads(result.body)["rows"]) == (200, taken["rows"])
        assert await asyncio.to_thread(stored_rows) == stored
        world.assert_clean()


async def test_a_world_is_exported_and_imported(stack: Stack, world: World, receiver: Receiver, views: str) -> None:
    fill(world, receiver)
    journal = OwnJournal(stack.redis_url)
    service = BundleService(units_of_work(), SecretBox(bytes(32)), load_directory(), journal)
    try:
        bundle = await service.export(world.merchant_id)
        assert comparable(json.loads(bundle)) == comparable(exported(world))
        with World.create(stack) as target:
            result = await service.import_world(request_of(target.merchant_id), parse_bundle(bundle))
            assert (result.status, json.loads(result.body)["imported"]) == (200, True)
            assert comparable(exported(target))["tables"] == comparable(exported(world))["tables"]
            target.assert_clean()
    finally:
        await journal.close()


async def test_a_bulk_credit_file_is_stored(world: World, views: str) -> None:
    user_id = make_user(world)
    result = await store(BulkCreditService(units_of_work()), world, io.BytesIO(HEADER + f"{user_id},7.50\n".encode()))
    assert result.status == 202
    until(lambda: summary(world, user_id)["credited"] == "7.50")


async def test_a_merchant_is_deleted(world: World, receiver: Receiver, views: str) -> None:
    fill(world, receiver)
    box, work = SecretBox(bytes(32)), units_of_work()
    result = await MerchantService(work, box, EndpointService(work, box, ()), "http://ipn.example").delete_merchant(
        request_of(""), world.merchant_id
    )
    assert result.status == 204
    assert [found for found in (await asyncio.to_thread(rows, world)).values() if found] == []


@pytest.mark.parametrize("table", TABLES)
async def test_copy_writes_to_the_table_itself(stack: Stack, views: str, table: str) -> None:
    async with connection("") as conn:
        assert await copy_target(conn, table) == (table, "public")
        assert await copy_target(conn, f"public.{table}") == (table, "public")
        assert await conn.fetchval("SELECT $1::text::regclass::oid <> $2::text::regclass::oid", table, f"public.{table}")


async def test_the_columns_of_a_bundle_are_those_of_the_tables(stack: Stack, views: str) -> None:
    async with connection("") as conn:
        found = await read_tables(conn)
        await conn.execute("SET search_path = public")
        assert await read_tables(conn) == found
    assert [column.name for column in found["payouts"].columns if column.is_key] == ["id"]
    assert not all(column.is_optional for column in found["payouts"].columns)
