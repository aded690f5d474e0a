"""Concurrent requests to processes that enter a Citus cluster by different nodes act as if there were one process."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from sandbox.infrastructure.db.distributed.cluster import Node, Shard
from sandbox.infrastructure.db.distributed.placement import every_shard
from sandbox.infrastructure.db.engine import connection, transaction
from tests.harness.citus import COORDINATOR, NODES, WORKERS, CitusCluster
from tests.harness.load import run_concurrently
from tests.harness.work import pooled
from tests.harness.world import World

pytestmark = pytest.mark.slow

THREADS = 8 * len(NODES)


@pytest.fixture(params=WORKERS)
def world_on_node(citus: CitusCluster, request: pytest.FixtureRequest) -> Iterator[World]:
    """A merchant of the worker node, with 1,000,000.00 available."""
    with citus.create_world_on(request.param, citus.sandbox(COORDINATOR), opening_balance="1000000.00") as world:
        yield world


def run_on_nodes(citus: CitusCluster, world: World, action: Callable[[int, httpx.Client], Any]) -> list[Any]:
    """Run the action in all threads at the same moment, the threads of each node through that node. Return the results."""
    return run_concurrently(world, action, THREADS, [citus.sandbox(entry).api_url for entry in NODES])


def test_one_idempotency_key_creates_one_payout(citus: CitusCluster, world_on_node: World) -> None:
    world, body = world_on_node, world_on_node.payout_body("0004")

    def create(number: int, client: httpx.Client) -> tuple[int, str]:
        response = client.post("/api/v1/payouts", json=body, headers={"X-IDEMPOTENCY-KEY": "one"})
        return response.status_code, response.json().get("id", response.json().get("code"))

    responses = set(run_on_nodes(citus, world, create))
    assert {status for status, _ in responses} <= {201, 409}
    assert {found for status, found in responses if status == 409} <= {"IDEMPOTENCY_KEY_IN_FLIGHT"}
    (created,) = (found for status, found in responses if status == 201)
    assert [payout["id"] for payout in world.get("/api/v1/payouts").json()["data"]] == [created]
    for entry in NODES:
        url = f"{citus.sandbox(entry).api_url}/api/v1/payouts"
        headers = {"X-API-KEY": world.api_key, "X-IDEMPOTENCY-KEY": "one"}
        assert httpx.post(url, json=body, headers=headers, timeout=60).json()["id"] == created
    assert world.balance() == ("999900.00", "100.00")
    world.assert_clean()


def test_parallel_payouts_never_overspend_one_balance(citus: CitusCluster, world_on_node: World) -> None:
    """A balance of 1,000,000.00 covers exactly 15 payouts of 66,000.00."""
    world = world_on_node

    def create(number: int, client: httpx.Client) -> int:
        body = world.payout_body("0004", amount="66000.00")
        return client.post("/api/v1/payouts", json=body, headers={"X-IDEMPOTENCY-KEY": f"n{number}"}).status_code

    assert Counter(run_on_nodes(citus, world, create)) == {201: 15, 422: THREADS - 15}
    assert world.balance() == ("10000.00", "990000.00")
    world.assert_clean()


async def test_the_shards_of_a_node_share_a_processs_connections_to_it(citus: CitusCluster) -> None:
    """However many transactions run at the same time, and in whichever shards. None is refused."""
    size = 2

    async def enter(shard: Shard) -> tuple[Node, int]:
        async with transaction(shard) as conn:
            await conn.execute("SELECT count(*) FROM payouts")
            return shard.node, await conn.fetchval("SELECT pg_backend_pid()")

    async with pooled(citus.urls[WORKERS[0]], size):
        used = set(await asyncio.gather(*(enter(shard) for shard in [*await every_shard()] * 25)))
    by_node = Counter(node for node, _ in used)
    assert {str(node) for node in by_node} == {citus.address(node) for node in WORKERS}
    assert max(by_node.values()) <= size


async def test_a_process_makes_its_first_connections_at_the_same_time(citus: CitusCluster, world_on_node: World) -> None:
    """Each of them finds out that the database is distributed, and finds the merchant."""

    async def name() -> object:
        async with connection(world_on_node.merchant_id) as conn:
            return await conn.fetchval("SELECT name FROM merchants WHERE merchant_id = $1", world_on_node.merchant_id)

    async with pooled(citus.urls[WORKERS[0]], 8):
        assert await asyncio.gather(*(name() for _ in range(8))) == ["test"] * 8
