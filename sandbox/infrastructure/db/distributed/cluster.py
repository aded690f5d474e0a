"""The layout of a distributed database (Citus): its nodes, and which node has which merchants' rows.

Every table is distributed by merchant_id, in shards by the hash of the id. The shards of all tables with the same range of
hashes are always on the same node. In this package, "shard" stands for such a group, and its id is that of `merchants`.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from sandbox.infrastructure.db.distributed.shard_hash import shard_hash
from sandbox.infrastructure.db.statements import read_statements

DISTRIBUTE_LOCK: Final = 0x7073705F646973
""""psp_dis": an advisory lock that `psp distribute` holds, so that no process starts while the tables are distributed."""

_SQL: Final = read_statements(__name__)


@dataclass(frozen=True, slots=True)
class Node:
    """A PostgreSQL server of the cluster, by the address that Citus has for it."""

    host: str
    port: int

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port."""
        return self.host, self.port

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Shard:
    """The rows of the merchants in one range of hashes, and the node that has them."""

    id: int
    lowest_hash: int
    node: Node

    @property
    def schema(self) -> str:
        """The schema on the node with a view of each table's rows in this shard."""
        return f"psp_shard_{self.id}"


class Cluster:
    """The nodes and shards of a distributed database, as of one moment."""

    def __init__(self, nodes: Sequence[Node], shards: Sequence[Shard]) -> None:
        """`shards` are in the order of their hashes, and cover all hashes."""
        self.nodes = nodes
        self.shards = shards
        self._lowest_hashes = [shard.lowest_hash for shard in shards]

    def shard_of(self, merchant_id: str) -> Shard:
        """Return the shard that has the merchant's rows, or would have them. Raises ValueError if the id is not a UUID."""
        return self.shards[bisect_right(self._lowest_hashes, shard_hash(merchant_id)) - 1]


async def read_cluster(conn: "asyncpg.Connection[Any]") -> Cluster | None:
    """Return the cluster to which the database belongs; None if its tables are not distributed."""
    if not await conn.fetchval(_SQL["has_citus"]):
        return None
    shards = [Shard(record[0], record[1], Node(record[2], record[3])) for record in await conn.fetch(_SQL["shards"])]
    if not shards:
        return None
    return Cluster([Node(*record) for record in await conn.fetch(_SQL["nodes"])], shards)
