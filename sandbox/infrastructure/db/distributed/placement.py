"""Which node and shard has a merchant's rows. On plain PostgreSQL, none is known, and one stands for everything."""

from collections.abc import Sequence
from typing import Final

from sandbox.infrastructure.db.distributed.cluster import Cluster, Node, Shard
from sandbox.infrastructure.db.distributed.cluster_pools import ClusterPools
from sandbox.infrastructure.db.engine import connection_errors_translated, known_pools, opened_pools

_PLAIN: Final = Shard(0, -(2**31), Node("", 0))
"""Stands for all rows on plain PostgreSQL."""


def shard_of(merchant_id: str) -> Shard | None:
    """Return the shard that has the merchant's rows; None, for all merchants, on plain PostgreSQL.

    Also None before the process has made its first connection. A transaction can hold rows of one shard only.
    """
    pools = _known()
    return None if pools is None else pools.cluster.shard_of(merchant_id)


def node_of(merchant_id: str) -> Node | None:
    """Return the node that has the merchant's rows; None where `shard_of` returns None."""
    shard = shard_of(merchant_id)
    return None if shard is None else shard.node


def is_available(merchant_id: str) -> bool:
    """Whether the node that would have the merchant's rows is not known to be down."""
    pools = _known()
    return pools is None or not pools.is_down(pools.cluster.shard_of(merchant_id).node)


def known_cluster() -> Cluster | None:
    """Return the cluster as last read; None on plain PostgreSQL, and before the process has made its first connection."""
    pools = _known()
    return None if pools is None else pools.cluster


async def read_cluster_again() -> None:
    """Find out what nodes and shards the database has now, if it is distributed. Raises DatabaseUnavailableError."""
    pools = _known()
    if pools is not None:
        with connection_errors_translated():
            await pools.read_again()


async def probe(node: Node) -> None:
    """Raise one of CONNECTION_ERRORS, or asyncpg's errors, unless the node of the known cluster accepts connections."""
    pools = _known()
    assert pools is not None, "only a distributed database has nodes"
    with connection_errors_translated():
        await pools.probe(node)


async def every_shard() -> Sequence[Shard]:
    """Return all shards; one that stands for everything on plain PostgreSQL. Raises DatabaseUnavailableError."""
    with connection_errors_translated():
        pools = await opened_pools().discover()
    return (_PLAIN,) if pools is None else pools.cluster.shards


def _known() -> ClusterPools | None:
    pools = known_pools()
    return None if pools is None else pools.cluster
