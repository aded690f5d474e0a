"""The connections of a process: one pool on plain PostgreSQL; on a distributed database, those of `distributed`."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from sandbox.infrastructure.db.connector import CONNECT_SECONDS, Connection, Connector, Pool, close
from sandbox.infrastructure.db.distributed.cluster import DISTRIBUTE_LOCK, Shard, read_cluster
from sandbox.infrastructure.db.distributed.cluster_pools import ClusterPools
from sandbox.infrastructure.db.distributed.node_pool import NodePool
from sandbox.infrastructure.db.pipelined_begin import send_with_next_statement
from sandbox.infrastructure.tasks import retrieve_error


class Pools:
    """Opens the pool when it is first used, and finds out whether the database is distributed."""

    def __init__(self, database_url: str, size: int, role: str, settings: Mapping[str, str]) -> None:
        """`size` is the maximum number of connections, to each node of a distributed database.

        They all have this role and these settings.
        """
        self._connector = Connector(database_url, role, settings)
        self._size = size
        self.cluster: ClusterPools | None = None
        """The connections to the nodes; None on plain PostgreSQL, and before the first connection."""
        self._is_discovered = False
        self._discovery: asyncio.Task[ClusterPools | None] | None = None
        self._opening = asyncio.Lock()
        self._pool: Pool | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def acquire(
        self, owner: str | Shard | None, begin: Sequence[str], function: str
    ) -> "tuple[Pool | NodePool, Connection]":
        """Take a connection to the rows of a merchant or shard, or, for None, to the tables that belong to no merchant.

        `begin` runs before its first statement; in a shard, so does `function`. Also return its pool, to which the caller must
        release it. Raises OSError and asyncpg's errors.
        """
        cluster = await self.discover()
        if cluster is not None:
            return await cluster.enter(owner, begin, function)
        pool = await self._open_pool()
        async with asyncio.timeout(CONNECT_SECONDS):  # the pool's own timeout starts a task each time
            conn = await pool.acquire()
        if begin:
            send_with_next_statement(conn, *begin)
        return pool, conn

    async def connect_as_owner(self) -> "asyncpg.Connection[Any]":
        """Connect as the owner of the database, to any node that responds. The caller closes it. Raises OSError."""
        cluster = await self.discover()
        return await (self._connector.connect(CONNECT_SECONDS) if cluster is None else cluster.connect_as_owner())

    async def close(self) -> None:
        """Close all connections. Those that are still busy after 5 seconds are terminated."""
        if self._pool is not None:
            self._close_soon(self._pool)
        if self.cluster is not None:
            await self.cluster.close()
        await asyncio.gather(*self._closing)

    async def discover(self) -> ClusterPools | None:
        """Return the connections to the nodes; None on plain PostgreSQL. Connects the first time.

        Raises OSError and asyncpg's errors.
        """
        if self._is_discovered:
            return self.cluster
        if self._discovery is None or self._discovery.done():
            # One for all callers: on a distributed database, the pool is closed at the end, while others would still connect.
            self._discovery = asyncio.create_task(self._discover())
            self._discovery.add_done_callback(retrieve_error)
        return await asyncio.shield(self._discovery)

    async def _discover(self) -> ClusterPools | None:
        pool = await self._open_pool()
        conn = await pool.acquire(timeout=CONNECT_SECONDS)  # `_read_cluster` runs on each new connection
        await pool.release(conn)
        self._is_discovered = True
        if self.cluster is not None and self._pool is not None:
            self._close_soon(self._pool)
            self._pool = None
        return self.cluster

    async def _open_pool(self) -> Pool:
        if self._pool is None:
            async with self._opening:
                if self._pool is None:
                    self._pool = await self._connector.create_pool(self._size, self._read_cluster)
        return self._pool

    async def _read_cluster(self, conn: "asyncpg.Connection[Any]") -> None:
        """Find out, on each new connection, whether the database is distributed. It may have been since the last one."""
        if not await conn.fetchval("SELECT pg_try_advisory_xact_lock_shared($1)", DISTRIBUTE_LOCK):
            raise ConnectionError("the database is being distributed")
        cluster = await read_cluster(conn)
        if cluster is not None and self.cluster is None:
            self.cluster = ClusterPools(self._connector, self._size, cluster)
        if cluster is not None and self._is_discovered:
            raise ConnectionError("the database was distributed since this process started")

    def _close_soon(self, pool: Pool) -> None:
        task = asyncio.create_task(close(pool))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
