"""Check readiness: PostgreSQL and Redis are available and accept writes, all migrations have run, and a worker is running.

Each check has a timeout of CHECK_TIMEOUT. A check that hangs is not started again; later calls wait for the same one.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import asyncpg
import msgspec
from redis.exceptions import OutOfMemoryError

from sandbox.domain.errors import Problem
from sandbox.infrastructure.db.distributed.cluster import Node
from sandbox.infrastructure.db.distributed.placement import known_cluster, probe, read_cluster_again
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, shared_connection
from sandbox.infrastructure.db.migrate import completed_migrations, migration_ids
from sandbox.infrastructure.disk import is_full
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.tasks import within
from sandbox.infrastructure.wake import WORKER_SEEN

if TYPE_CHECKING:
    from redis.asyncio import Redis

CHECK_TIMEOUT: Final = 2.0
"""Seconds per check; the checks run concurrently."""

NODE_TIMEOUT: Final = 1.5
"""Seconds for listing the nodes of a distributed database, and again for checking them all concurrently."""

_WRITTEN: Final = "psp:readiness"
_WRITTEN_BYTES: Final = 64 * 1024
"""About as much as the journal writes in one call. A smaller write may still fit when the journal's does not."""
_OUT_OF_MEMORY: Final = (
    "Redis is out of memory, so calls are not journaled, rate limits are not enforced and workers start late: raise its "
    "maxmemory, or delete other data in it"
)

Unavailable = Mapping[str, str]
"""Part → error message. The parts are `database`, `migrated`, `redis`, `worker` and `disk`."""

# Writes a fifth of a megabyte to a temporary file of PostgreSQL, on the disk of its data, and commits nothing.
_WRITE: Final = "SELECT count(*) FROM generate_series(1, 10000)"
_FULL: Final = "is full: free some space on it, and the sandbox continues by itself"


class NodeStatus(msgspec.Struct):
    """A node of a distributed database."""

    node: str
    """Host and port."""
    status: Literal["up", "down"]
    has_merchants: bool
    """False for a coordinator that only coordinates."""


class Ready(msgspec.Struct, omit_defaults=True):
    """The response of `/health/ready` if requests can be served."""

    status: Literal["ready", "degraded"]
    """`degraded` if nodes of a distributed database are down: the merchants whose rows they have get 503."""
    nodes: list[NodeStatus] | msgspec.UnsetType = msgspec.UNSET
    """Only on a distributed database."""


class Readiness:
    """Checks the stores and, if `with_worker`, that a worker is running."""

    def __init__(self, redis: "Redis", *, with_worker: bool = True, timeout: float = CHECK_TIMEOUT) -> None:
        self._redis = redis
        self._with_worker = with_worker
        self._timeout = timeout
        self._checks: dict[str, asyncio.Task[Unavailable]] = {}

    async def find_unavailable(self) -> Unavailable:
        """Return the unavailable parts; none if the process is ready. Takes at most the timeout."""
        database, redis = await asyncio.gather(
            self._run("database", _check_database, "PostgreSQL is unavailable"),
            self._run("redis", self._check_redis, "Redis is unavailable"),
        )
        return {**database, **redis, **_check_disk()}

    async def require(self) -> Ready:
        """Return the state of a process that can serve requests. Raises UNAVAILABLE, naming each unavailable part."""
        unavailable = await self.find_unavailable()
        nodes = await _check_nodes()
        if nodes and not any(node.status == "up" for node in nodes if node.has_merchants):
            down = ", ".join(node.node for node in nodes if node.status == "down")
            unavailable = {**unavailable, "database": f"No node that has merchants' rows responds; down: {down}"}
        if unavailable:
            detail = f"Not ready: {'; '.join(unavailable.values())}."
            raise Problem("UNAVAILABLE", detail, errors=tuple(unavailable.items()), headers={"Retry-After": "1"})
        if not nodes:
            return Ready("ready")
        return Ready("degraded" if any(node.status == "down" for node in nodes) else "ready", nodes)

    async def close(self) -> None:
        """Cancel the checks in progress. A hanging check of the database ends when its pool closes."""
        for task in self._checks.values():
            task.cancel()

    async def _run(self, part: str, check: Callable[[], Awaitable[Unavailable]], timeout_message: str) -> Unavailable:
        task = self._checks.get(part)
        if task is None:
            task = self._checks[part] = asyncio.ensure_future(check())
            task.add_done_callback(lambda _: self._checks.pop(part, None))
        # Do not cancel a late check: cancelling a statement would also wait for PostgreSQL.
        await asyncio.wait({task}, timeout=self._timeout)
        return task.result() if task.done() else {part: timeout_message}

    async def _check_redis(self) -> Unavailable:
        try:
            await self._redis.set(_WRITTEN, bytes(_WRITTEN_BYTES), px=1000)
            has_worker = bool(await self._redis.exists(WORKER_SEEN))
        except OutOfMemoryError:
            return {"redis": _OUT_OF_MEMORY}
        except REDIS_ERRORS:
            return {"redis": "Redis is unavailable"}
        return {} if has_worker or not self._with_worker else {"worker": "no worker has been seen in the last 5 seconds"}


def _check_disk() -> Unavailable:
    """Check the disk of the data directory, as far as this process knows it. That disk also has the logs and the metrics."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return {"disk": f"the disk of the data directory {_FULL}"} if folder and is_full(Path(folder)) else {}


async def _check_nodes() -> list[NodeStatus]:
    """Return the nodes of a distributed database; none on plain PostgreSQL."""
    with contextlib.suppress(*CONNECTION_ERRORS, asyncpg.PostgresError, TimeoutError):
        await within(NODE_TIMEOUT, read_cluster_again())
    cluster = known_cluster()  # as it was before, if it could not be read
    if cluster is None:
        return []
    with_merchants = {shard.node for shard in cluster.shards}
    return await asyncio.gather(*(_check_node(node, node in with_merchants) for node in cluster.nodes))


async def _check_node(node: Node, has_merchants: bool) -> NodeStatus:
    try:
        await within(NODE_TIMEOUT, probe(node))
    except (*CONNECTION_ERRORS, asyncpg.PostgresError, TimeoutError):
        return NodeStatus(str(node), "down", has_merchants)
    return NodeStatus(str(node), "up", has_merchants)


async def _check_database() -> Unavailable:
    """Check the migrations on a node that responds. A merchant's node may still be down."""
    try:
        async with shared_connection() as conn:
            completed = await completed_migrations(conn)
            async with conn.transaction(readonly=True):
                await conn.execute("SET LOCAL work_mem = '64kB'")
                await conn.execute(_WRITE)
    except asyncpg.DiskFullError:
        return {"database": f"PostgreSQL cannot write, because its disk {_FULL}"}
    except (*CONNECTION_ERRORS, asyncpg.InvalidAuthorizationSpecificationError):
        return {"database": "PostgreSQL is unavailable or rejects the connection"}
    except asyncpg.PostgresError:
        completed = set()  # the migrations table or even our role is missing: the database was never migrated
    known = migration_ids()
    if known <= completed:
        return {}
    command = "python -m psp_sandbox.application sandbox.infrastructure.db.migrate"
    return {"migrated": f"{len(known - completed)} of {len(known)} migrations have not run ({command})"}
