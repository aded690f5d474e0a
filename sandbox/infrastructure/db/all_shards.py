"""Reads that span merchants: they run on every shard."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.distributed.cluster import Node, Shard
from sandbox.infrastructure.db.distributed.placement import every_shard
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, DatabaseUnavailableError, connection
from sandbox.infrastructure.tasks import within

T = TypeVar("T")
_SHARD_SECONDS: Final = 2.0
"""How long `on_every_shard` waits for a shard. Longer than any read on all shards takes in one of them."""


@dataclass(frozen=True, slots=True)
class AllShards(Generic[T]):
    """The results of a read on all shards, and the nodes ("host:port") that did not respond."""

    rows: list[T]
    unavailable: list[str]


async def on_every_shard(read: Callable[[Connection], Awaitable[Sequence[T]]]) -> AllShards[T]:
    """Run a read, which takes a connection, once for each shard: nodes side by side, the shards of a node in turn.

    A node that takes longer than 2 seconds for a shard is left out, unless it is the only one. Raises CONNECTION_ERRORS if no
    node responds, and asyncpg's statement errors.
    """
    shards: defaultdict[Node, list[Shard]] = defaultdict(list)
    for shard in await every_shard():
        shards[shard.node].append(shard)
    seconds = _SHARD_SECONDS if len(shards) > 1 else None

    async def read_one(shard: Shard) -> Sequence[T]:
        async with connection(shard) as conn:
            return await read(conn)

    async def read_all(node: Node) -> list[T]:
        try:
            return [row for shard in shards[node] for row in await within(seconds, read_one(shard))]
        except TimeoutError as error:
            raise DatabaseUnavailableError(TimeoutError(f"node {node} does not respond")) from error

    results = await asyncio.gather(*map(read_all, shards), return_exceptions=True)
    rows: list[T] = []
    unavailable_nodes: list[str] = []
    for node, result in zip(shards, results, strict=True):
        if not isinstance(result, BaseException):
            rows += result
        elif isinstance(result, CONNECTION_ERRORS) and len(shards) > 1:
            unavailable_nodes.append(str(node))
        else:
            raise result
    if len(unavailable_nodes) == len(shards):
        raise next(result for result in results if isinstance(result, BaseException))
    return AllShards(rows, unavailable_nodes)
