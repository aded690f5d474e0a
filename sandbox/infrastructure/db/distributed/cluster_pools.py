"""The connections of a process to the nodes of a distributed database: pools for each node."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import asyncpg

from sandbox.infrastructure.db.connector import CONNECT_SECONDS, Connection, Connector, close, roll_back
from sandbox.infrastructure.db.distributed.cluster import Cluster, Node, Shard, read_cluster
from sandbox.infrastructure.db.distributed.node_pool import AllBusyError, NodePool, ShardConnection
from sandbox.infrastructure.db.distributed.shard_schema import NODE_SETTINGS, SHARD_MOVED, find_prepared, prepare_shard

SHARED_CONNECTIONS: Final = 2
"""Further connections to each node: for tables that belong to no merchant, and to see whether the node responds."""
_DOWN_SECONDS: Final = 1.0
"""How long requests for an unreachable node fail immediately, before the next one tries to connect again."""
_UNREACHABLE: Final = (OSError, asyncpg.CannotConnectNowError)
"""Errors of an unavailable node: it cannot be reached, or it is starting or shutting down."""
_SHARD_SETTINGS: Final = {"citus.override_table_visibility": "off", "citus.enable_manual_changes_to_shards": "on"}
_NOT_HERE: Final = {SHARD_MOVED, "42883", "3F000"}
"""The SQLSTATEs of `psp_enter` on a node that does not have the shard, or whose schemas a migration has dropped."""
_ATTEMPTS_TO_FIND_SHARD: Final = 3
_ENTER_SECONDS: Final = 10.0
"""How long a node may take to begin a transaction. A write also waits that long for a shard that is being moved."""
_IDLE_SECONDS: Final = 60
"""How long a connection may be unused before it is closed: there are many, to all nodes."""


class ClusterPools:
    """Opens pools when they are first used, and finds shards again that have moved."""

    def __init__(self, connector: Connector, size: int, cluster: Cluster) -> None:
        """`size` is the maximum number of connections to each node."""
        self.cluster = cluster
        """The cluster, as last read."""
        self._connector = connector
        self._size = size
        self._changing = asyncio.Lock()
        self._nodes: dict[Node, NodePool] = {}
        self._shared: dict[Node, NodePool] = {}
        self._prepared: set[Shard] = set()
        self._preparing: dict[Node, asyncio.Lock] = {}
        self._down_until: dict[Node, float] = {}

    def is_down(self, node: Node) -> bool:
        """Whether the node could not be reached a second ago, or since then, while one request tries again."""
        return self._down_until.get(node, 0.0) > time.monotonic()

    def mark_down(self, node: Node) -> None:
        """Let requests for the node fail immediately, as long as `is_down` says."""
        self._down_until[node] = time.monotonic() + _DOWN_SECONDS

    async def enter(self, owner: str | Shard | None, begin: Sequence[str], function: str) -> tuple[NodePool, Connection]:
        """Take a connection to the rows of a merchant or shard, or, for None, to the tables that belong to no merchant.

        In a shard, `begin` has run, and so has the shard's function (`shard_schema.py`). If the shard has moved, try again at
        its new node. Also return the pool, to which the caller must release the connection. Raises OSError and asyncpg's
        errors.
        """
        if owner is None:
            return await self._acquire_shared(self.cluster)
        shard = self.cluster.shard_of(owner) if isinstance(owner, str) else owner
        for _ in range(_ATTEMPTS_TO_FIND_SHARD - 1):
            try:
                return await self._enter(shard, begin, function)
            except asyncpg.PostgresError as error:
                if error.sqlstate not in _NOT_HERE:
                    raise
                shard = await self._find_again(shard)
        try:
            return await self._enter(shard, begin, function)
        except asyncpg.PostgresError as error:
            if error.sqlstate not in _NOT_HERE:
                raise
            raise ConnectionError(f"{type(error).__name__}: {error}") from error

    async def _enter(self, shard: Shard, begin: Sequence[str], function: str) -> tuple[NodePool, Connection]:
        pool, conn = await self._acquire_from(shard.node, partial(self._take, self.cluster, shard))
        try:
            await conn.execute(f"{'; '.join(begin)}; SELECT {function}()", timeout=_ENTER_SECONDS)
        except BaseException as error:
            if isinstance(error, TimeoutError):
                conn.terminate()
                self.mark_down(shard.node)
            else:
                await roll_back(conn)  # a cancelled BEGIN may have begun a transaction
            await pool.release(conn)
            raise
        return pool, conn

    async def _find_again(self, shard: Shard) -> Shard:
        """Return the shard at its present node, because it has moved or its schema was dropped.

        Raises OSError if no node responds, or if the shard was split: merchants that shared it may have different ones now.
        """
        async with self._changing:
            if shard in self.cluster.shards:  # otherwise another task has read it in the meantime
                self.cluster = await self._read_anywhere()
            present = {known.id: known for known in self.cluster.shards}
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
        for node in self._in_order(self.cluster):
            with contextlib.suppress(*_UNREACHABLE):
                return await self._connector.connect(CONNECT_SECONDS, node.address)
        raise ConnectionError("no node of the cluster responds")

    async def read_again(self) -> None:
        """Read the cluster again, from any of its nodes that responds. Raises OSError if none does."""
        async with self._changing:
            self.cluster = await self._read_anywhere()

    async def probe(self, node: Node) -> None:
        """Run a statement on the node. Raises OSError or asyncpg's errors."""
        pool, conn = await self._acquire_from(node, partial(self._take_shared, node))
        try:
            await conn.execute("SELECT 1")
        finally:
            await pool.release(conn)

    async def close(self) -> None:
        """Close all pools. Connections that are still busy after 5 seconds are terminated."""
        await asyncio.gather(*map(close, [*self._nodes.values(), *self._shared.values()]))

    def _in_order(self, cluster: Cluster) -> list[Node]:
        """Return the nodes. Those that recently did not respond come last, because asking them again may take long."""
        return sorted(cluster.nodes, key=lambda node: (node in self._down_until, self.is_down(node)))

    async def _read_anywhere(self) -> Cluster:
        """Return the cluster as one of its nodes knows it. Raises OSError if none responds."""
        for node in self._in_order(self.cluster):
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                conn = await self._connector.connect(2.0, node.address)
                try:
                    return await read_cluster(conn) or self.cluster
                finally:
                    await conn.close(timeout=2.0)
        raise ConnectionError("no node of the cluster responds")

    async def _acquire_shared(self, cluster: Cluster) -> tuple[NodePool, Connection]:
        """Take a connection to any node that responds. The tables that belong to no merchant are on all nodes."""
        nodes = self._in_order(cluster)
        for node in nodes[:-1]:
            with contextlib.suppress(OSError):
                return await self._acquire_from(node, partial(self._take_shared, node))
        return await self._acquire_from(nodes[-1], partial(self._take_shared, nodes[-1]))

    async def _acquire_from(
        self, node: Node, take: "Callable[[], Awaitable[tuple[NodePool, Connection]]]"
    ) -> tuple[NodePool, Connection]:
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

    async def _take(self, cluster: Cluster, shard: Shard) -> tuple[NodePool, Connection]:
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
            conn = await self._connector.connect(CONNECT_SECONDS, shard.node.address, NODE_SETTINGS)
            try:
                self._prepared |= await find_prepared(conn, [known for known in looked_up if known.node == shard.node])
                if shard not in self._prepared:
                    await prepare_shard(conn, shard, self._connector.role)
                    self._prepared.add(shard)
            finally:
                await conn.close(timeout=CONNECT_SECONDS)

    async def _take_shared(self, node: Node) -> tuple[NodePool, Connection]:
        pool = self._shared.get(node)
        if pool is None:
            pool = self._shared[node] = await self._open_node_pool(SHARED_CONNECTIONS, node)
        return pool, await pool.acquire(None, CONNECT_SECONDS)

    async def _open_node_pool(self, size: int, node: Node, settings: Mapping[str, str] | None = None) -> NodePool:
        return await NodePool.open(
            size, lambda init: self._connector.create_pool(1, init, node.address, settings, ShardConnection, _IDLE_SECONDS)
        )
