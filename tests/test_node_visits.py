"""The test for Vitest that the console writes of a visit makes the same payouts, statuses and events for a new merchant."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.node_package import Node, built_package, environment
from tests.harness.programs import needs
from tests.harness.visits import VISITS, state_of
from tests.harness.visits import recorded as recorded_visit
from tests.harness.world import Stack, World

pytestmark = [pytest.mark.slow, needs("node"), needs("npm")]

KEEP = """
  const get = async (path) => (await fetch(psp.url + path, { headers: { "X-API-KEY": psp.apiKey } })).json();
  const kept = { payouts: await get("/api/v1/payouts?limit=100"), events: await get("/api/v1/events?limit=100") };
  (await import("node:fs")).writeFileSync("NAME.json", JSON.stringify(kept));
});
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Install and build a copy of the package."""
    with built_package(tmp_path_factory.mktemp("node")) as built:
        yield built


def test_the_vitest_test_of_a_visit_makes_the_same_world(stack: Stack, node: Node, tmp_path: Path) -> None:
    project = node.project(tmp_path / "project")
    expected = {}
    for seed in range(VISITS):
        with World.create(stack, opening_balance="1000000.00") as world:
            _, _, code = recorded_visit(world, seed)
            world.post("/sandbox/v1/drain")
            expected[f"visit-{seed}"] = state_of(lambda path, world=world: world.get(path).json())
        assert code.endswith("});\n")
        (project / f"visit-{seed}.test.js").write_text(code.removesuffix("});\n") + KEEP.replace("NAME", f"visit-{seed}"))
    there = environment(PSP_URL=stack.api_url, PSP_ADMIN_KEY=stack.admin_key)
    tested = node.run("vitest", "run", "--testTimeout=60000", cwd=project, env=there)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    for name, state in expected.items():
        kept = json.loads((project / f"{name}.json").read_text())
        assert state_of(lambda path, kept=kept: kept["payouts" if "payouts" in path else "events"]) == state, name
