"""`psp bench scale` measures the servers of a Citus cluster on this machine."""

import json

import pytest

from sandbox.cli.benches.scale import IN_FLIGHT, Cost, ScaleBench, scale_figures
from sandbox.cli.benches.stack import BenchError
from tests.harness.citus import WORKERS, CitusCluster
from tests.harness.command import invoke
from tests.harness.programs import needs
from tests.harness.world import Stack

pytestmark = pytest.mark.slow


@needs("wrk")
def test_it_finds_the_server_of_each_node_and_what_a_payout_costs_it(citus: CitusCluster) -> None:
    command = ["bench", "scale", "--cluster", citus.urls[WORKERS[1]], "--seconds", "1", "--rounds", "1", "--idle-seconds", "1"]
    result = invoke(*command, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert sorted(found["in_flight"], key=int) == [str(number) for number in IN_FLIGHT]
    for costs in found["in_flight"].values():
        assert set(costs["cpu_us_per_payout"]) == {citus.address(node) for node in citus.urls}
        assert costs["plain_cpu_us_per_payout"] > 0
        assert costs["ratio"] > 0


def test_it_refuses_a_database_that_is_not_distributed(stack: Stack) -> None:
    with pytest.raises(BenchError, match="Run psp distribute"):
        ScaleBench(stack.database_url, 1, 1, 1).run()


def test_the_ratio_is_that_of_all_nodes_to_one_server() -> None:
    costs = [Cost(100.0, {"a:1": 10.0, "b:2": 110.0}), Cost(50.0, {"a:1": 50.0, "b:2": 0.0})]
    assert [figure.rounds for figure in scale_figures({16: costs}) if figure.name == "in_flight/16/ratio"] == [[1.2, 1.0]]
