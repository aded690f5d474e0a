"""A node that does not respond delays one request at a time; others for it fail immediately. Another node takes its place."""

import asyncio
from types import SimpleNamespace

import pytest

from sandbox.infrastructure.db.connector import Connector
from sandbox.infrastructure.db.distributed import cluster_pools as module
from sandbox.infrastructure.db.distributed.cluster import Cluster, Node
from sandbox.infrastructure.db.distributed.cluster_pools import SHARED_CONNECTIONS, ClusterPools
from sandbox.infrastructure.db.engine import APPLICATION_ROLE
from tests.harness.proxy import Proxy
from tests.harness.world import Stack


def cluster_pools() -> ClusterPools:
    connector = Connector("postgresql://postgres@127.0.0.1/sandbox?sslmode=disable", APPLICATION_ROLE, {})
    return ClusterPools(connector, 4, Cluster([], []))


async def test_only_one_request_waits_for_a_node_that_does_not_respond(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    async with Proxy(f"{stack.database_url.partition('?host=')[2]}/.s.PGSQL.5432").serving() as proxy:
        opened = cluster_pools()
        node = Node("127.0.0.1", proxy.port)
        pool, conn = await opened._take_shared(node)  # its own time limit stays long, for slow machines
        conn.terminate()
        await pool.release(conn)
        other = Node(stack.database_url.partition("?host=")[2], 5432)
        pool, conn = await opened._take_shared(other)
        await pool.release(conn)
        monkeypatch.setattr(module, "CONNECT_SECONDS", 0.2)

        async def probe_together() -> list[str]:
            results = await asyncio.gather(*(opened.probe(node) for _ in range(3)), return_exceptions=True)
            return [type(result).__name__ for result in results]

        try:
            proxy.flows.clear()
            with pytest.raises(TimeoutError):
                await opened.probe(node)
            assert opened.is_down(node)
            assert await probe_together() == ["ConnectionError"] * 3
            clock.now += 2
            pool, conn = await opened._acquire_shared(Cluster([node, other], []))
            await pool.release(conn)
            assert not opened.is_down(node), "what any node can do must not wait for this one"
            assert await probe_together() == ["TimeoutError", "ConnectionError", "ConnectionError"]
            proxy.flows.set()
            clock.now += 2
            monkeypatch.setattr(module, "CONNECT_SECONDS", 5.0)
            assert await probe_together() == ["NoneType", "ConnectionError", "ConnectionError"]
            assert not opened.is_down(node)
            assert await probe_together() == ["NoneType"] * 3
        finally:
            await opened.close()


async def refuse_to_start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Act as a PostgreSQL server that is recovering after a crash."""
    length = int.from_bytes(await reader.readexactly(4))
    await reader.readexactly(length - 4)
    fields = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0"
    writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
    await writer.drain()
    writer.close()


async def test_another_node_takes_the_place_of_one_that_is_starting(stack: Stack) -> None:
    """For what every node has a copy of, such as the merchants of demo keys."""
    path = f"{stack.database_url.partition('?host=')[2]}/.s.PGSQL.5432"
    starting = await asyncio.start_server(refuse_to_start, "127.0.0.1", 0)
    async with starting, Proxy(path).serving() as proxy:
        opened = cluster_pools()
        nodes = [Node("127.0.0.1", starting.sockets[0].getsockname()[1]), Node("127.0.0.1", proxy.port)]
        try:
            for _ in range(2):
                pool, conn = await opened._acquire_shared(Cluster(nodes, []))
                assert await conn.fetchval("SELECT 1") == 1
                await pool.release(conn)
            assert [opened.is_down(node) for node in nodes] == [True, False]
            with pytest.raises(ConnectionError):
                await opened.probe(nodes[0])
        finally:
            await opened.close()


async def test_a_node_whose_connections_are_all_busy_is_not_down(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Proxy(f"{stack.database_url.partition('?host=')[2]}/.s.PGSQL.5432").serving() as proxy:
        opened = cluster_pools()
        node = Node("127.0.0.1", proxy.port)
        try:
            taken = [await opened._take_shared(node) for _ in range(SHARED_CONNECTIONS)]
            monkeypatch.setattr(module, "CONNECT_SECONDS", 0.2)
            with pytest.raises(TimeoutError):
                await opened.probe(node)
            assert not opened.is_down(node)
            monkeypatch.setattr(module, "CONNECT_SECONDS", 5.0)
            for pool, conn in taken:
                await pool.release(conn)
            await opened.probe(node)
        finally:
            await opened.close()
