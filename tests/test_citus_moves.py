"""While Citus moves shards to other nodes, all requests succeed, through each node of the cluster, and nothing is lost."""

from urllib.parse import urlsplit

import pytest

from tests.harness.citus import COORDINATOR, NODES, WORKERS, CitusCluster
from tests.harness.load import Load
from tests.harness.waiting import until
from tests.harness.world import World

pytestmark = pytest.mark.slow

MOVE = "SELECT citus_move_shard_placement(get_shard_id_for_distribution_column('merchants', $1::uuid), $2, $3, $4, $5, $6)"
SHARDS_OF_NODE = "SELECT count(*) FROM citus_shards WHERE table_name = 'merchants'::regclass AND nodeport = $1"


def place(citus: CitusCluster, node: str) -> tuple[str | None, int | None]:
    """Return the node's host and port."""
    url = urlsplit(citus.urls[node])
    return url.hostname, url.port


def move(citus: CitusCluster, statement: str, *arguments: object) -> None:
    """Run a statement that moves shards. First let Citus drop the tables that earlier moves have left behind.

    It drops them later if they are locked just then, and refuses to move a shard to a node that still has its old table.
    """

    def has_cleaned_up() -> bool:
        citus.execute(COORDINATOR, "CALL citus_cleanup_orphaned_resources()")
        return not citus.execute(COORDINATOR, "SELECT FROM pg_dist_cleanup")

    until(has_cleaned_up, seconds=120)
    citus.execute(COORDINATOR, statement, *arguments)


def light_load(citus: CitusCluster, world: World) -> Load:
    """Create payouts through each node, a few at a time."""
    return Load(world, [citus.sandbox(entry).api_url for entry in NODES], threads=len(NODES), pause=0.1)


def wait_for_more(load: Load) -> None:
    before = len(load.created)
    until(lambda: len(load.created) >= before + 10, seconds=120)


def assert_nothing_refused_or_lost(load: Load, world: World) -> None:
    load.stop()
    assert [response.text for response in load.refused] == []
    rows = world.stack.execute("SELECT id::text, merchant_reference FROM payouts WHERE merchant_id = $1", world.merchant_id)
    assert sorted((row["merchant_reference"], row["id"]) for row in rows) == sorted(load.created.items())
    assert world.post("/sandbox/v1/drain").json()["drained"]
    assert world.balance() == (f"{1_000_000 - len(load.created)}.00", "0.00")
    world.assert_clean()


def test_a_merchants_shard_moves_while_it_creates_payouts(citus: CitusCluster) -> None:
    with citus.create_world_on(WORKERS[0], citus.sandbox(COORDINATOR), opening_balance="1000000.00") as world:
        load = light_load(citus, world)
        for source, target, mode in ((*WORKERS, "block_writes"), (*reversed(WORKERS), "force_logical")):
            wait_for_more(load)
            move(citus, MOVE, world.merchant_id, *place(citus, source), *place(citus, target), mode)
            assert citus.node_of(world.merchant_id) == target
        wait_for_more(load)
        assert_nothing_refused_or_lost(load, world)


def test_a_node_without_merchants_gets_some_and_gives_them_back(citus: CitusCluster) -> None:
    """The coordinator takes part in a rebalancing as a new node does, and then leaves like a node that is to be removed."""
    host, port = place(citus, COORDINATOR)
    with citus.create_world_on(WORKERS[0], citus.sandbox(COORDINATOR), opening_balance="1000000.00") as world:
        load = light_load(citus, world)
        may_have_shards = "SELECT citus_set_node_property($1, $2, 'shouldhaveshards', $3)"
        citus.execute(COORDINATOR, may_have_shards, host, port, True)
        move(citus, "SELECT rebalance_table_shards(shard_transfer_mode := 'block_writes')")
        assert citus.execute(COORDINATOR, SHARDS_OF_NODE, port)[0]["count"] > 0
        if citus.node_of(world.merchant_id) != COORDINATOR:
            move(citus, MOVE, world.merchant_id, *place(citus, WORKERS[0]), host, port, "block_writes")
        wait_for_more(load)
        citus.execute(COORDINATOR, may_have_shards, host, port, False)
        move(citus, "SELECT citus_drain_node($1, $2, 'block_writes')", host, port)
        assert citus.execute(COORDINATOR, SHARDS_OF_NODE, port)[0]["count"] == 0
        wait_for_more(load)
        assert_nothing_refused_or_lost(load, world)
