"""The connections of a process: one pool on plain PostgreSQL, one pool for each node on a distributed database."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import asyncpg

from sandbox.infrastructure.db.distributed.cluster import DISTRIBUTE_LOCK, Cluster, Node, Shard, read_cluster
from sandbox.infrastructure.db.distributed.node_pool import AllBusyError, Connection, NodePool, Pool, ShardConnection
from sandbox.infrastructure.db.distributed.shard_schema import NODE_SETTINGS, find_prepared, prepare_shard
from sandbox.infrastructure.tasks import retrieve_error

CONNECT_SECONDS: Final = 5.0
SHARED_CONNECTIONS: Final = 2
"""Further connections to each node: for tables that belong to no merchant, and to see whether the node responds."""
_DOWN_SECONDS: Final = 1.0
"""How long requests for an unreachable node fail immediately, before the next one tries to connect again."""
_UNREACHABLE: Final = (OSError, asyncpg.CannotConnectNowError)
"""Errors of an unavailable node: it cannot be reached, or it is starting or shutting down."""
_SHARD_SETTINGS: Final = {"citus.override_table_visibility": "off", "citus.enable_manual_changes_to_shards": "on"}

_IDLE_SECONDS: Final = 5
"""How long a transaction may wait for its process. Transactions do nothing else between their statements, so after that the
process is stopped or hangs, and PostgreSQL rolls back and releases the merchants' locks."""


class Pools:
    """Opens pools when they are first used, and finds out whether the database is distributed."""

    def __init__(self, database_url: str, size: int, role: str, settings: Mapping[str, str]) -> None:
        """`size` is the maximum number of connections, to each node of a distributed database.

        They all have this role and these settings.
        """
        self._database_url = database_url
        self._size = size
        self._role = role
        self._settings = {
            "role": role,
            "application_name": "psp-sandbox",
            "idle_in_transaction_session_timeout": f"{_IDLE_SECONDS}s",
            **settings,
        }
        self._cluster: Cluster | None = None
        self._is_discovered = False
        self._discovery: asyncio.Task[Cluster | None] | None = None
        self._changing = asyncio.Lock()
        self._entry: Pool | None = None
        self._nodes: dict[Node, NodePool] = {}
        self._shared: dict[Node, NodePool] = {}
        self._prepared: set[Shard] = set()
        self._preparing: dict[Node, asyncio.Lock] = {}
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
        """Let requests for the node fail immediately, as long as `is_down` says."""
        self._down_until[node] = time.monotonic() + _DOWN_SECONDS

    async def acquire(self, owner: "str | Shard | None") -> "tuple[Pool | NodePool, Connection, Shard | None]":
        """Take a connection to the rows of a merchant or shard, or, for None, to the tables that belong to no merchant.

        Also return its pool, to which the caller must release it, and its shard; None on plain PostgreSQL. Raises OSError and
        asyncpg's errors.
        """
        cluster = await self.discover()
        if cluster is None:
            pool = await self._entry_pool()
            async with asyncio.timeout(CONNECT_SECONDS):  # the pool's own timeout starts a task each time
                return pool, await pool.acquire(), None
        if owner is None:
            return *await self._acquire_shared(cluster), None
        shard = cluster.shard_of(owner) if isinstance(owner, str) else owner
        return *await self._acquire_from(shard.node, partial(self._take, cluster, shard)), shard

    async def find_again(self, shard: Shard) -> Shard:
        """Return the shard at its present node, because it has moved or its schema was dropped.

        Raises OSError if no node responds, or if the shard was split: merchants that shared it may have different ones now.
        """
        async with self._changing:
            if (
                self._cluster is not None and shard in self._cluster.shards
            ):  # otherwise another task has read it in the meantime
                self._cluster = await self._read_anywhere(self._cluster)
            present = {} if self._cluster is None else {known.id: known for known in self._cluster.shards}
            for known in [*self._prepared]:
                if known == shard or known != present.get(known.id):
                    self._prepared.remove(known)
                    if known.node in self._nodes:
                        await self._nodes[known.node].forget(known.schema)
        if shard.id not in present:
            raise ConnectionError(f"shard {shard.id} was split")
        return present[shard.id]

    async def connect_as_owner(self) -> "asyncpg.Connection[Any]":
        """Connect to any node that responds, as the owner of the database. The caller closes it. Raises OSError."""
        cluster = await self.discover()
        if cluster is None:
            return await self._connect(None, CONNECT_SECONDS)
        for node in self._in_order(cluster):
            with contextlib.suppress(*_UNREACHABLE):
                return await self._connect(node, CONNECT_SECONDS)
        raise ConnectionError("no node of the cluster responds")

    async def read_again(self) -> None:
        """Read the cluster again, from any of its nodes that responds. Raises OSError if none does."""
        if self._cluster is not None:
            async with self._changing:
                self._cluster = await self._read_anywhere(self._cluster)

    async def probe(self, node: Node) -> None:
        """Run a statement on the node. Raises OSError or asyncpg's errors."""
        pool, conn = await self._acquire_from(node, partial(self._take_shared, node))
        try:
            await conn.execute("SELECT 1")
        finally:
            await pool.release(conn)

    async def close(self) -> None:
        """Close all pools. Connections that are still busy after 5 seconds are terminated."""
        pools: list[Pool | NodePool] = [*self._nodes.values(), *self._shared.values()]
        for pool in pools if self._entry is None else [self._entry, *pools]:
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
            self._discovery.add_done_callback(retrieve_error)
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

    def _in_order(self, cluster: Cluster) -> list[Node]:
        """Return the nodes. Those that recently did not respond come last, because asking them again may take long."""
        return sorted(cluster.nodes, key=lambda node: (node in self._down_until, self.is_down(node)))

    async def _read_anywhere(self, known: Cluster) -> Cluster:
        """Return the cluster as one of its nodes knows it. Raises OSError if none responds."""
        for node in self._in_order(known):
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                conn = await self._connect(node, 2.0)
                try:
                    return await read_cluster(conn) or known
                finally:
                    await conn.close(timeout=2.0)
        raise ConnectionError("no node of the cluster responds")

    async def _acquire_shared(self, cluster: Cluster) -> "tuple[NodePool, Connection]":
        """Take a connection to any node that responds. The tables that belong to no merchant are on all nodes."""
        nodes = self._in_order(cluster)
        for node in nodes[:-1]:
            with contextlib.suppress(OSError):
                return await self._acquire_from(node, partial(self._take_shared, node))
        return await self._acquire_from(nodes[-1], partial(self._take_shared, nodes[-1]))

    async def _acquire_from(
        self, node: Node, take: "Callable[[], Awaitable[tuple[NodePool, Connection]]]"
    ) -> "tuple[NodePool, Connection]":
        if self.is_down(node):
            raise ConnectionError(f"node {node} is unreachable")
        if node in self._down_until:
            # Only this request waits to see whether the node is back. Meanwhile, the others still fail immediately.
            self._down_until[node] = time.monotonic() + CONNECT_SECONDS
        try:
            taken = await take()
        except asyncpg.CannotConnectNowError as error:
            self.mark_down(node)
            raise ConnectionError(f"node {node}: {error}") from error
        except AllBusyError:
            raise
        except OSError:
            self.mark_down(node)
            raise
        self._down_until.pop(node, None)
        return taken

    async def _take(self, cluster: Cluster, shard: Shard) -> "tuple[NodePool, Connection]":
        if shard not in self._prepared:
            await self._prepare(cluster, shard)
        pool = self._nodes.get(shard.node)
        if pool is None:
            pool = self._nodes[shard.node] = await self._open_node_pool(self._size, shard.node, _SHARD_SETTINGS)
        return pool, await pool.acquire(shard.schema, CONNECT_SECONDS)

    async def _prepare(self, cluster: Cluster, shard: Shard) -> None:
        """Prepare the shard's schema on its node. The first time, also find out which of the node's others are prepared.

        One connection at a time does this, so that a process that starts does not need one for each shard.
        """
        looked_up = [shard] if shard.node in self._preparing else cluster.shards
        async with self._preparing.setdefault(shard.node, asyncio.Lock()):
            if shard in self._prepared:
                return
            conn = await self._connect(shard.node, CONNECT_SECONDS, NODE_SETTINGS)
            try:
                self._prepared |= await find_prepared(conn, [known for known in looked_up if known.node == shard.node])
                if shard not in self._prepared:
                    await prepare_shard(conn, shard, self._role)
                    self._prepared.add(shard)
            finally:
                await conn.close(timeout=CONNECT_SECONDS)

    async def _take_shared(self, node: Node) -> "tuple[NodePool, Connection]":
        pool = self._shared.get(node)
        if pool is None:
            pool = self._shared[node] = await self._open_node_pool(SHARED_CONNECTIONS, node)
        return pool, await pool.acquire(None, CONNECT_SECONDS)

    async def _open_node_pool(self, size: int, node: Node, settings: Mapping[str, str] | None = None) -> NodePool:
        return await NodePool.open(size, lambda init: self._create_pool(1, node, settings, init))

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
            connection_class=asyncpg.Connection if node is None else ShardConnection,
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

    def _close_soon(self, pool: "Pool | NodePool") -> None:
        task = asyncio.create_task(_close(pool))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _address_of(node: Node | None) -> dict[str, Any]:
    """Return the arguments of a connection to the node; for None, to the server that the URL names."""
    return {} if node is None else {"host": node.host, "port": node.port}


async def _close(pool: "Pool | NodePool") -> None:
    try:
        await asyncio.wait_for(pool.close(), 5)
    except TimeoutError:
        pool.terminate()


async def _reset(_: object) -> None:
    """Do nothing when a connection returns to the pool: no transaction is left open, and no session state was set.

    asyncpg's own reset would cost a round trip each time.
    """
