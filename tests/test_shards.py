"""Which shard has a merchant's rows, and that a transaction holds merchants of one shard only."""

import uuid
from collections import Counter
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.infrastructure.db import all_shards, engine
from sandbox.infrastructure.db.all_shards import on_every_shard
from sandbox.infrastructure.db.distributed.cluster import Cluster, Node, Shard
from sandbox.infrastructure.db.distributed.shard_hash import shard_hash
from sandbox.infrastructure.db.engine import DatabaseUnavailableError
from tests.harness.work import pooled
from tests.harness.world import Stack

NODES = [Node("127.0.0.1", 1), Node("127.0.0.1", 2)]
SHARDS = [Shard(number, -(2**31) + number * 2**30, NODES[number % 2]) for number in range(4)]


async def test_the_hash_is_that_of_postgresql(stack: Stack) -> None:
    ids = [str(uuid.UUID(int=0)), str(uuid.UUID(int=2**128 - 1)), *(str(uuid.uuid4()) for _ in range(500))]
    conn = await asyncpg.connect(stack.database_url)
    try:
        records = await conn.fetch("SELECT id::text, uuid_hash(id) FROM unnest($1::uuid[]) AS n (id)", ids)
    finally:
        await conn.close()
    assert {record[0]: shard_hash(record[0]) for record in records} == dict(tuple(record) for record in records)


@pytest.mark.parametrize("text", ["", "x", "00000000-0000-0000-0000-00000000000", "sk_sandbox_demo_admin"])
def test_only_a_uuid_has_a_hash(text: str) -> None:
    with pytest.raises(ValueError, match=r"UUID|hexadecimal"):
        shard_hash(text)


@given(st.uuids())
def test_a_shard_has_the_hashes_from_its_lowest_to_the_next_ones(merchant_id: uuid.UUID) -> None:
    shard = Cluster(NODES, SHARDS).shard_of(str(merchant_id))
    assert shard.lowest_hash <= shard_hash(str(merchant_id)) < shard.lowest_hash + 2**30


async def test_reads_on_all_shards_leave_out_nodes_that_do_not_respond(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a node is reported. If none responds, or a statement is refused, the read fails."""
    down: set[Node] = set()
    reads: Counter[str] = Counter()

    async def every_shard() -> list[Shard]:
        return SHARDS

    real_acquire = engine.Pools.acquire

    async def acquire(self: engine.Pools, owner: Shard, *entry: Any) -> object:
        if owner.node in down:
            raise ConnectionRefusedError("connection refused")
        reads[str(owner.node)] += 1
        return await real_acquire(self, str(uuid.UUID(int=0)), *entry)

    async def read(conn: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> list[int]:
        return [await conn.fetchval("SELECT 1")]

    async def refused(conn: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> list[int]:
        return [await conn.fetchval("SELECT nothing")]

    async with pooled(stack.database_url, 2):
        monkeypatch.setattr(all_shards, "every_shard", every_shard)
        monkeypatch.setattr(engine.Pools, "acquire", acquire)
        found = await on_every_shard(read)
        assert (found.rows, found.unavailable, reads) == ([1] * 4, [], {"127.0.0.1:1": 2, "127.0.0.1:2": 2})
        with pytest.raises(asyncpg.UndefinedColumnError):
            await on_every_shard(refused)
        down.add(NODES[1])
        found = await on_every_shard(read)
        assert (found.rows, found.unavailable) == ([1, 1], ["127.0.0.1:2"])
        down.add(NODES[0])
        with pytest.raises(DatabaseUnavailableError, match="connection refused"):
            await on_every_shard(read)
