"""The shards of a node share a limited number of connections, and each connection serves few of them if possible."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from sandbox.infrastructure.db.connector import Connector
from sandbox.infrastructure.db.distributed import node_pool
from sandbox.infrastructure.db.distributed.cluster import Cluster, Node
from sandbox.infrastructure.db.distributed.cluster_pools import ClusterPools
from sandbox.infrastructure.db.distributed.node_pool import AllBusyError, NodePool
from sandbox.infrastructure.db.engine import APPLICATION_ROLE
from tests.harness.world import Stack

SIZE = 2


@pytest.fixture
async def pool(stack: Stack) -> AsyncIterator[NodePool]:
    """Yield a pool of SIZE connections."""
    url = "postgresql://postgres@127.0.0.1/sandbox?sslmode=disable"
    pools = ClusterPools(Connector(url, APPLICATION_ROLE, {"role": "none"}), SIZE, Cluster([], []))
    pool = await pools._open_node_pool(SIZE, Node(stack.database_url.partition("?host=")[2], 5432))
    yield pool
    await asyncio.wait_for(pool.close(), 30)


async def serve(pool: NodePool, schema: str) -> int:
    """Take a connection for the schema, check its search path, and return the id of its server process."""
    conn = await pool.acquire(schema, 60)
    try:
        pid, found = await conn.fetchrow("SELECT pg_backend_pid(), current_setting('search_path')") or (0, "")
        assert found == schema
        return int(pid)
    finally:
        await pool.release(conn)


async def test_any_number_of_shards_share_the_connections(pool: NodePool) -> None:
    pids = await asyncio.gather(*(serve(pool, f"shard_{number % 12}") for number in range(100)))
    assert len(set(pids)) <= SIZE


async def test_a_connection_is_used_for_the_shards_that_it_knows(pool: NodePool, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is busy, they wait for it, but not for long. Other shards do not wait."""
    monkeypatch.setattr(node_pool, "PATIENCE_SECONDS", 60.0)
    first = await pool.acquire("a", 60)
    b = await serve(pool, "b")
    waiting = asyncio.create_task(serve(pool, "a"))
    assert [await serve(pool, "b"), await serve(pool, "c")] == [b, b]
    assert not waiting.done()
    a = await first.fetchval("SELECT pg_backend_pid()")
    await pool.release(first)
    assert [await waiting, await serve(pool, "b"), await serve(pool, "c"), await serve(pool, "a")] == [a, b, b, a]
    monkeypatch.setattr(node_pool, "PATIENCE_SECONDS", 0.01)
    first = await pool.acquire("a", 60)
    assert await serve(pool, "a") == b  # its patience has an end
    await pool.release(first)


async def test_without_an_idle_connection_a_caller_waits_in_turn_until_its_time_is_up(pool: NodePool) -> None:
    busy = [await pool.acquire(schema, 60) for schema in "ab"]
    with pytest.raises(AllBusyError):
        await pool.acquire("a", 0.01)
    given_up = asyncio.create_task(serve(pool, "a"))
    others = [asyncio.create_task(serve(pool, schema)) for schema in "abc"]
    await asyncio.sleep(0)
    given_up.cancel()
    pids = [await conn.fetchval("SELECT pg_backend_pid()") for conn in busy]
    for conn in busy:
        await pool.release(conn)
    assert set(await asyncio.gather(*others)) <= set(pids)
    assert [await serve(pool, schema) for schema in "ab"] == pids


async def test_a_connection_that_has_served_many_shards_is_replaced(pool: NodePool, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the memory of its server process, which keeps the plans of each, is limited."""
    monkeypatch.setattr(node_pool, "MAX_SHARDS_PER_CONNECTION", 3)
    pids = [await serve(pool, schema) for schema in "abcabcdabc"]
    assert len(set(pids[:6])) == 1
    assert pids[6] != pids[0]
    assert pids[7:] == pids[:3]
    served = [await serve(pool, f"shard_{number}") for number in range(12)]
    assert max(map(served.count, served)) <= 3


async def test_statements_are_prepared_for_the_shard_of_the_moment(pool: NodePool, stack: Stack) -> None:
    """The same statement has another type, and other parameters, in another schema."""
    owner = await asyncpg.connect(stack.database_url)
    try:
        for schema, kind in (("psp_test_a", "integer"), ("psp_test_b", "text")):
            await owner.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.t (value {kind})")
        for _ in range(3):
            for schema, value in (("psp_test_a", 1), ("psp_test_b", "one")):
                conn = await pool.acquire(schema, 60)
                async with conn.transaction():
                    await conn.execute("DELETE FROM t")
                    await conn.execute("INSERT INTO t VALUES ($1)", value)
                    assert await conn.fetchval("SELECT value FROM t WHERE value = $1", value) == value
                await pool.release(conn)
    finally:
        await owner.execute("DROP SCHEMA IF EXISTS psp_test_a, psp_test_b CASCADE")
        await owner.close()


async def test_connections_that_know_a_dropped_schema_are_closed(pool: NodePool) -> None:
    busy = await pool.acquire("a", 60)
    a, b = await busy.fetchval("SELECT pg_backend_pid()"), await serve(pool, "b")
    await pool.forget("a")
    await pool.release(busy)
    assert [await serve(pool, schema) for schema in "ba"] == [b, b]
    assert a != b


async def test_a_lost_connection_is_replaced(pool: NodePool) -> None:
    lost = await pool.acquire("a", 60)
    lost.terminate()
    await pool.release(lost)
    pids = await asyncio.gather(*(serve(pool, schema) for schema in "aabb"))
    assert len(set(pids)) == SIZE
