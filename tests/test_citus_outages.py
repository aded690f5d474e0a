"""If a node of a Citus cluster dies, only its own merchants have to wait, and nothing is lost and nothing happens twice."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import cycle
from typing import Any

import asyncpg
import httpx
import pytest

from sandbox.infrastructure.db import pools
from sandbox.infrastructure.db.all_shards import on_every_shard
from sandbox.infrastructure.db.distributed import cluster_pools
from sandbox.infrastructure.db.distributed.cluster import Cluster, Node, read_cluster
from sandbox.infrastructure.db.engine import DatabaseUnavailableError, close_pool, connection, open_pool
from sandbox.infrastructure.redis_client import connect
from sandbox.server.readiness import Readiness
from tests.harness.citus import COORDINATOR, NODES, WORKERS, CitusCluster
from tests.harness.load import Load
from tests.harness.waiting import until
from tests.harness.world import Stack, World

pytestmark = pytest.mark.slow

ALIVE, DEAD = WORKERS


@pytest.fixture(scope="module")
def stacks(citus: CitusCluster) -> list[Stack]:
    """A sandbox for each node that a DATABASE_URL can name."""
    return [citus.sandbox(entry) for entry in NODES]


@pytest.fixture
def world(citus: CitusCluster, stacks: list[Stack]) -> Iterator[World]:
    """A merchant of the node that dies."""
    with citus.create_world_on(DEAD, stacks[0], opening_balance="1000000.00") as world:
        yield world


@pytest.fixture
def neighbour(citus: CitusCluster, stacks: list[Stack]) -> Iterator[World]:
    """A merchant of the other node."""
    with citus.create_world_on(ALIVE, stacks[0], opening_balance="1000000.00") as world:
        yield world


def create(stack: Stack, world: World, key: str, suffix: str = "0001") -> httpx.Response:
    """Create a payout through this sandbox. The key determines the request."""
    body = world.payout_body(suffix, amount="1.00", merchant_reference=key)
    headers = {"X-API-KEY": world.api_key, "X-IDEMPOTENCY-KEY": key}
    return httpx.post(f"{stack.api_url}/api/v1/payouts", json=body, headers=headers, timeout=60)


def read(stack: Stack, world: World, payout_id: str) -> httpx.Response:
    """Read a payout through this sandbox."""
    return httpx.get(f"{stack.api_url}/api/v1/payouts/{payout_id}", headers={"X-API-KEY": world.api_key}, timeout=60)


def assert_all_paid(world: World, created: dict[str, str]) -> None:
    """Fail unless the merchant has exactly these payouts, by reference, all of them succeed, and the books are right."""
    for payout_id in created.values():
        world.wait_for(payout_id, "SUCCESS", seconds=120)
    rows = world.stack.execute("SELECT id::text, merchant_reference FROM payouts WHERE merchant_id = $1", world.merchant_id)
    assert sorted((row["merchant_reference"], row["id"]) for row in rows) == sorted(created.items())
    assert world.balance() == (f"{1_000_000 - len(created)}.00", "0.00")
    world.assert_clean()


def test_a_killed_node_stops_its_own_merchants_only(
    citus: CitusCluster, stacks: list[Stack], world: World, neighbour: World
) -> None:
    """200 of 200 requests for a merchant of another node succeed, through each node: even through the one that is dead."""
    before = {key: create(stacks[0], world, key, suffix).json()["id"] for key, suffix in (("a", "0001"), ("b", "0002"))}
    assert [citus.readiness(stack) for stack in stacks] == [("ready", [])] * len(stacks)
    created: dict[str, str] = {}
    with citus.killed(DEAD):
        for number, stack in zip(range(100), cycle(stacks), strict=False):
            response = create(stack, neighbour, f"key-{number}")
            assert response.status_code == 201, response.text
            created[f"key-{number}"] = response.json()["id"]
            response = read(stack, neighbour, response.json()["id"])
            assert response.status_code == 200, response.text
        assert [citus.readiness(stack) for stack in stacks] == [("degraded", [DEAD])] * len(stacks)
        for stack in stacks:
            for response in (create(stack, world, "c"), create(stack, world, "a"), read(stack, world, before["a"])):
                assert (response.status_code, response.json()["code"]) == (503, "UNAVAILABLE"), response.text
                assert response.headers["content-type"] == "application/problem+json"
                assert int(response.headers["retry-after"]) >= 1
        assert_all_paid(neighbour, created)
    after = {key: {create(stack, world, key, suffix).json()["id"] for stack in stacks} for key, suffix in (
        ("a", "0001"), ("b", "0002"), ("c", "0001"),
    )}  # fmt: skip
    assert all(len(ids) == 1 for ids in after.values())
    payouts = {key: ids.pop() for key, ids in after.items()}
    assert payouts == {**before, "c": payouts["c"]}
    assert_all_paid(world, payouts)


@pytest.fixture
async def renamed(citus: CitusCluster, stacks: list[Stack], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Connect this process to the cluster, but with a name for DEAD that does not resolve. Yield the node as it is named then.

    So it is with containers: their names vanish when they stop.
    """
    gone = Node("node.invalid", int(citus.address(DEAD).rpartition(":")[2]))

    def resolve(host: object, *arguments: Any, **options: Any) -> Any:
        if host in (gone.host, gone.host.encode()):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve_others(host, *arguments, **options)

    def rename(node: Node) -> Node:
        return gone if str(node) == citus.address(DEAD) else node

    async def read_renamed(conn: "asyncpg.Connection[Any]") -> Cluster:
        cluster = await read_cluster(conn)
        assert cluster is not None
        return Cluster([*map(rename, cluster.nodes)], [replace(shard, node=rename(shard.node)) for shard in cluster.shards])

    resolve_others = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for module in (pools, cluster_pools):
        monkeypatch.setattr(module, "read_cluster", read_renamed)
    await open_pool(citus.urls[COORDINATOR], 2)
    yield str(gone)
    await close_pool()


@pytest.mark.parametrize("nodes_can_be_read", [True, False])
async def test_a_node_whose_name_does_not_resolve_is_down(
    stacks: list[Stack], world: World, neighbour: World, renamed: str, monkeypatch: pytest.MonkeyPatch, nodes_can_be_read: bool
) -> None:
    """Readiness names it, even if the process cannot read the list of nodes. Lists have the merchants of the others."""
    redis = connect(stacks[0].redis_url)
    readiness = Readiness(redis)
    try:
        for _ in range(3):
            ready = await readiness.require()
            assert ready.status == "degraded"
            assert ready.nodes
            assert {node.status: node.node for node in ready.nodes}["down"] == renamed
            assert len(ready.nodes) == len(NODES)
            if not nodes_can_be_read:
                monkeypatch.setattr(cluster_pools.ClusterPools, "read_again", lambda _: asyncio.Event().wait())
    finally:
        await readiness.close()
        await redis.aclose()
    found = await on_every_shard(lambda conn: conn.fetch("SELECT merchant_id::text FROM merchants"))
    assert found.unavailable == [renamed]
    ids = {row[0] for row in found.rows}
    assert (neighbour.merchant_id in ids, world.merchant_id in ids) == (True, False)
    with pytest.raises(DatabaseUnavailableError):
        async with connection(world.merchant_id):
            pass


def test_new_merchants_are_created_while_a_node_is_dead(citus: CitusCluster, stacks: list[Stack]) -> None:
    """Also by the requests that find out that the node is down: the first ones, and one a second in each process after that."""
    with citus.killed(DEAD):
        for stack in stacks:
            for _ in range(60):
                response = httpx.post(
                    f"{stack.api_url}/sandbox/v1/merchants",
                    json={"name": "new"},
                    headers={"X-ADMIN-KEY": stack.admin_key},
                    timeout=60,
                )
                assert response.status_code == 201, response.text
                assert citus.node_of(response.json()["merchant_id"]) != DEAD


def test_a_node_killed_among_requests_loses_and_doubles_nothing(
    citus: CitusCluster, stacks: list[Stack], world: World, neighbour: World
) -> None:
    """Requests are repeated with their keys until they get a 201. Only those of the dead node's merchant are ever refused."""
    urls = [stack.api_url for stack in stacks]
    loads = [Load(world, urls), Load(neighbour, urls)]

    def wait_for_more(load: Load, number: int = 25) -> None:
        before = len(load.created)
        until(lambda: len(load.created) >= before + number, seconds=120)

    for load in loads:
        wait_for_more(load)
    with citus.killed(DEAD):
        wait_for_more(loads[1])
    for load in loads:
        wait_for_more(load)
    for load in loads:
        load.stop()
    assert loads[0].refused
    assert loads[1].refused == []
    for load, owner in zip(loads, (world, neighbour), strict=True):
        assert_all_paid(owner, load.created)
        key, payout_id = next(iter(load.created.items()))
        assert [create(stack, owner, key).json()["id"] for stack in stacks] == [payout_id] * len(stacks)


def test_no_request_needs_the_coordinator(citus: CitusCluster, stacks: list[Stack], world: World, neighbour: World) -> None:
    with citus.killed(COORDINATOR):
        for owner in (world, neighbour):
            created: dict[str, str] = {}
            for number, stack in zip(range(20), cycle(stacks), strict=False):
                response = create(stack, owner, f"key-{number}")
                assert response.status_code == 201, response.text
                created[f"key-{number}"] = response.json()["id"]
            for payout_id in created.values():
                owner.wait_for(payout_id, "SUCCESS")
            owner.assert_clean()
        assert [citus.readiness(stack) for stack in stacks] == [("degraded", [COORDINATOR])] * len(stacks)
        with World.create(stacks[1], opening_balance="100.00") as new:
            assert new.wait_for(new.create_payout()["id"], "SUCCESS")
