"""The connections of a process: one pool on plain PostgreSQL, one pool for each shard on a distributed database."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from sandbox.db.cluster import DISTRIBUTE_LOCK, Cluster, Node, Shard, read_cluster
from sandbox.db.shard_schema import NODE_SETTINGS, prepare_shard

CONNECT_SECONDS: Final = 5.0
MIN_CONNECTIONS_PER_SHARD: Final = 4
_DOWN_SECONDS: Final = 1.0
"""How long requests for an unreachable node fail at once, before the next one tries to connect again."""
_UNREACHABLE: Final = (OSError, asyncpg.CannotConnectNowError)
"""Errors of a node that does not serve: it cannot be reached, or it is starting or shutting down."""
_SHARD_SETTINGS: Final = {"citus.override_table_visibility": "off", "citus.enable_manual_changes_to_shards": "on"}

Connection: TypeAlias = "PoolConnectionProxy[Any]"
Pool: TypeAlias = "asyncpg.Pool[Any]"


class Pools:
    """Opens pools when they are first used, and finds out whether the database is distributed."""

    def __init__(self, database_url: str, size: int, role: str, settings: Mapping[str, str]) -> None:
        """`size` is the maximum number of connections on plain PostgreSQL. They all have this role and these settings."""
        self._database_url = database_url
        self._size = size
        self._role = role
        self._settings = {"role": role, "application_name": "psp-sandbox", **settings}
        self._cluster: Cluster | None = None
        self._is_discovered = False
        self._discovery: asyncio.Task[Cluster | None] | None = None
        self._changing = asyncio.Lock()
        self._entry: Pool | None = None
        self._shards: dict[Shard, Pool] = {}
        self._preparing: dict[Shard, asyncio.Lock] = {}
        self._shared: dict[Node, Pool] = {}
        self._down_until: dict[Node, float] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def cluster(self) -> Cluster | None:
        """The cluster, as last read; None on plain PostgreSQL, and before the first connection."""
        return self._cluster

    def is_down(self, node: Node) -> bool:
        """Whether the node could not be reached a second ago, or since then, while one request tries again."""
        return self._down_until.get(node, 0.0) > time.monotonic()

    def mark_down(self, node: Node) -> None:
        """Let requests for the node fail at once, as long as `is_down` says."""
        self._down_until[node] = time.monotonic() + _DOWN_SECONDS

    async def acquire(self, owner: "str | Shard | None") -> "tuple[Pool, Connection, Shard | None]":
        """Take a connection to the rows of a merchant or shard, or, for None, to the tables that belong to no merchant.

        Also return its pool, to which the caller must release it, and its shard; None on plain PostgreSQL. Raises OSError and
        asyncpg's errors.
        """
        cluster = await self.discover()
        if cluster is None:
            pool = await self._entry_pool()
            return pool, await pool.acquire(timeout=CONNECT_SECONDS), None
        if owner is None:
            return *await self._acquire_shared(cluster), None
        shard = cluster.shard_of(owner) if isinstance(owner, str) else owner
        pool, conn = await self._acquire_from(shard.node, partial(self._shard_pool, cluster, shard))
        return pool, conn, shard

    async def find_again(self, shard: Shard) -> Shard:
        """Return the shard at its present node, because it has moved or its schema was dropped.

        Raises OSError if no node responds, or if the shard was split: merchants that shared it may have different ones now.
        """
        async with self._changing:
            if self._cluster is not None and shard in self._cluster.shards:  # else another task has read it meanwhile
                self._cluster = await self._read_anywhere(self._cluster)
            present = {} if self._cluster is None else {known.id: known for known in self._cluster.shards}
            for known in [shard, *self._shards]:
                if known == shard or known != present.get(known.id):
                    pool = self._shards.pop(known, None)
                    if pool is not None:
                        self._close_soon(pool)
        if shard.id not in present:
            raise ConnectionError(f"shard {shard.id} was split")
        return present[shard.id]

    async def connect_as_owner(self) -> "asyncpg.Connection[Any]":
        """Connect to any node that responds, as the owner of the database. The caller closes it. Raises OSError."""
        cluster = await self.discover()
        if cluster is None:
            return await self._connect(None, CONNECT_SECONDS)
        for node in sorted(cluster.nodes, key=self.is_down):
            with contextlib.suppress(*_UNREACHABLE):
                return await self._connect(node, CONNECT_SECONDS)
        raise ConnectionError("no node of the cluster responds")

    async def nodes(self) -> Sequence[Node]:
        """Return the cluster's nodes, from any of them that responds; none on plain PostgreSQL. Raises OSError."""
        if self._cluster is None:
            return ()
        async with self._changing:
            self._cluster = await self._read_anywhere(self._cluster)
            return self._cluster.nodes

    async def probe(self, node: Node) -> None:
        """Run a statement on the node. Raises OSError or asyncpg's errors."""
        pool, conn = await self._acquire_from(node, partial(self._shared_pool, node))
        try:
            await conn.execute("SELECT 1")
        finally:
            await pool.release(conn)

    async def close(self) -> None:
        """Close all pools. Connections that are still busy after 5 seconds are terminated."""
        entry = [] if self._entry is None else [self._entry]
        for pool in (*entry, *self._shards.values(), *self._shared.values()):
            self._close_soon(pool)
        if self._closing:
            await asyncio.wait(self._closing)

    async def discover(self) -> Cluster | None:
        """Return the cluster; None on plain PostgreSQL. Connects the first time. Raises OSError and asyncpg's errors."""
        if self._is_discovered:
            return self._cluster
        if self._discovery is None or self._discovery.done():
            # One for all callers: on a distributed database, the pool is closed at the end, while others would still connect.
            self._discovery = asyncio.create_task(self._discover())
        return await asyncio.shield(self._discovery)

    async def _discover(self) -> Cluster | None:
        pool = await self._entry_pool()
        conn = await pool.acquire(timeout=CONNECT_SECONDS)  # `_read_entry` runs on each new connection
        await pool.release(conn)
        self._is_discovered = True
        if self._cluster is not None and self._entry is not None:
            self._close_soon(self._entry)
            self._entry = None
        return self._cluster

    async def _entry_pool(self) -> "Pool":
        if self._entry is None:
            async with self._changing:
                if self._entry is None:
                    self._entry = await self._create_pool(self._size, init=self._read_entry)
        return self._entry

    async def _read_entry(self, conn: "asyncpg.Connection[Any]") -> None:
        """Find out, on each new connection, whether the database is distributed. It may have been since the last one."""
        if not await conn.fetchval("SELECT pg_try_advisory_xact_lock_shared($1)", DISTRIBUTE_LOCK):
            raise ConnectionError("the database is being distributed")
        self._cluster = await read_cluster(conn)
        if self._cluster is not None and self._is_discovered:
            raise ConnectionError("the database was distributed since this process started")

    async def _read_anywhere(self, known: Cluster) -> Cluster:
        """Return the cluster as one of its nodes knows it. Raises OSError if none responds."""
        for node in sorted(known.nodes, key=self.is_down):
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                conn = await self._connect(node, 2.0)
                try:
                    return await read_cluster(conn) or known
                finally:
                    await conn.close(timeout=2.0)
        raise ConnectionError("no node of the cluster responds")

    async def _acquire_shared(self, cluster: Cluster) -> "tuple[Pool, Connection]":
        """Take a connection to any node that responds. The tables that belong to no merchant are on all nodes."""
        nodes = sorted(cluster.nodes, key=self.is_down)
        for node in nodes[:-1]:
            with contextlib.suppress(OSError):
                return await self._acquire_from(node, partial(self._shared_pool, node))
        return await self._acquire_from(nodes[-1], partial(self._shared_pool, nodes[-1]))

    async def _acquire_from(self, node: Node, find_pool: "Callable[[], Awaitable[Pool]]") -> "tuple[Pool, Connection]":
        if self.is_down(node):
            raise ConnectionError(f"node {node} is unreachable")
        if node in self._down_until:
            # Only this request waits to see whether the node is back. Meanwhile, the others still fail at once.
            self._down_until[node] = time.monotonic() + CONNECT_SECONDS
        pool: Pool | None = None
        try:
            pool = await find_pool()
            conn = await pool.acquire(timeout=CONNECT_SECONDS)
        except asyncpg.CannotConnectNowError as error:
            self.mark_down(node)
            raise ConnectionError(f"node {node}: {error}") from error
        except OSError as error:
            all_are_busy = isinstance(error, TimeoutError) and pool is not None and pool.get_size() == pool.get_max_size()
            if not all_are_busy:
                self.mark_down(node)
            raise
        self._down_until.pop(node, None)
        return pool, conn

    async def _shard_pool(self, cluster: Cluster, shard: Shard) -> "Pool":
        async with self._preparing.setdefault(shard, asyncio.Lock()):
            pool = self._shards.get(shard)
            if pool is None:
                conn = await self._connect(shard.node, CONNECT_SECONDS, NODE_SETTINGS)
                try:
                    await prepare_shard(conn, shard, self._role)
                finally:
                    await conn.close(timeout=CONNECT_SECONDS)
                neighbours = sum(other.node == shard.node for other in cluster.shards)
                size = max(MIN_CONNECTIONS_PER_SHARD, -(-self._size // neighbours))
                settings = {**_SHARD_SETTINGS, "search_path": shard.schema}
                pool = self._shards[shard] = await self._create_pool(size, shard.node, settings)
        return pool

    async def _shared_pool(self, node: Node) -> "Pool":
        pool = self._shared.get(node)
        if pool is None:
            pool = self._shared[node] = await self._create_pool(2, node)
        return pool

    async def _create_pool(
        self,
        size: int,
        node: Node | None = None,
        settings: Mapping[str, str] | None = None,
        init: Any = None,
    ) -> "Pool":
        return await asyncpg.create_pool(
            dsn=self._database_url,
            **_address_of(node),
            min_size=0,
            max_size=size,
            timeout=CONNECT_SECONDS,
            command_timeout=60,
            max_inactive_connection_lifetime=300 if node is None else 60,
            server_settings={**self._settings, **(settings or {})},
            reset=_reset,
            init=init,
        )

    async def _connect(
        self, node: Node | None, seconds: float, settings: Mapping[str, str] | None = None
    ) -> "asyncpg.Connection[Any]":
        conn: asyncpg.Connection[Any] = await asyncpg.connect(
            dsn=self._database_url,
            **_address_of(node),
            timeout=seconds,
            command_timeout=60,
            server_settings={"application_name": "psp-sandbox", **(settings or {})},
        )
        return conn

    def _close_soon(self, pool: "Pool") -> None:
        task = asyncio.create_task(_close(pool))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _address_of(node: Node | None) -> dict[str, Any]:
    """Return the arguments of a connection to the node; for None, to the server that the URL names."""
    return {} if node is None else {"host": node.host, "port": node.port}


async def _close(pool: "Pool") -> None:
    try:
        await asyncio.wait_for(pool.close(), 5)
    except TimeoutError:
        pool.terminate()


async def _reset(_: object) -> None:
    """Do nothing when a connection returns to the pool: no transaction is left open, and no session state was set.

    asyncpg's own reset would cost a round trip each time.
    """
