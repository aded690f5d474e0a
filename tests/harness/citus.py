"""A Citus cluster on loopback, distributed, and sandboxes that enter it by a node of choice.

A script starts the cluster: PSP_CITUS_CLUSTER names it, else it is `../shared/citus/cluster`, beside the project's folder. It
takes `start FOLDER WORKERS PYTHON`, which prints the coordinator's URL and a line `NODE PORT PID` for each node (`coordinator`,
`worker1`, ...), and `kill`, `resume` and `stop`. Without it, the tests that need a cluster are skipped.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import psutil
import pytest

from sandbox.infrastructure.db.distributed.distribute import distribute
from sandbox.infrastructure.db.engine import APPLICATION_ROLE
from tests.harness.own_sandbox import start_sandbox
from tests.harness.supervised import end, environment
from tests.harness.waiting import until
from tests.harness.world import Stack, World, owner_of

SHARDS = 4
COORDINATOR = "coordinator"
WORKERS = ("worker1", "worker2")
NODES = (COORDINATOR, *WORKERS)
_PROJECT = Path(__file__).parents[2]
_SECRET_KEY = "Y2x1c3RlcnMgaW4gdGVzdHMgaGF2ZSBhIGtleSBhbHM="
_PLACEMENT = """
SELECT n.nodeport FROM pg_dist_placement p JOIN pg_dist_node n ON n.groupid = p.groupid AND n.noderole = 'primary'
WHERE p.shardid = get_shard_id_for_distribution_column('merchants', $1::uuid)
"""


class CitusCluster:
    """A running cluster, and the sandboxes that were started on it."""

    def __init__(self, script: Path, folder: Path, urls: Mapping[str, str]) -> None:
        """`urls` has the URL of the cluster's database by the name of the node that it enters by."""
        self.urls = urls
        self._script = script
        self._folder = folder
        self._sandboxes: dict[str, tuple[subprocess.Popen[bytes], Stack]] = {}

    def kill(self, node: str) -> None:
        """Kill the node's PostgreSQL, as a crash.

        The script kills the main process only. The others end when they notice, so wait for them: until then, a request for a
        new merchant could find the node alive, begin on it, and fail.
        """
        others = [row["pid"] for row in self.execute(node, "SELECT pid FROM pg_stat_activity")]
        _run(self._script, "kill", self._folder, node)
        until(lambda: not any(map(_runs, others)))

    def resume(self, node: str) -> None:
        """Start the node's PostgreSQL again, and wait until it accepts connections."""
        _run(self._script, "resume", self._folder, node)

    @contextlib.contextmanager
    def killed(self, node: str) -> Iterator[None]:
        """Kill the node, run the block, and start the node again. Wait until all sandboxes have found it."""
        self.kill(node)
        try:
            yield
        finally:
            self.resume(node)
            for _, stack in self._sandboxes.values():
                until(lambda stack=stack: self.readiness(stack) == ("ready", []))

    def readiness(self, stack: Stack) -> tuple[str, list[str]]:
        """Return what `/health/ready` says, which must be 200: the status and the names of the nodes that are down."""
        response = httpx.get(f"{stack.api_url}/health/ready", timeout=60)
        assert response.status_code == 200, response.text
        found = response.json()
        down = {node["node"] for node in found["nodes"] if node["status"] == "down"}
        assert {node["node"] for node in found["nodes"]} == {self.address(node) for node in NODES}
        return found["status"], [node for node in NODES if self.address(node) in down]

    def address(self, node: str) -> str:
        """Return the node's address as the sandbox names it: "host:port"."""
        url = urlsplit(self.urls[node])
        return f"{url.hostname}:{url.port}"

    def execute(self, node: str, statement: str, *arguments: object) -> list[dict[str, Any]]:
        """Run SQL on a node as the owner of the database, through Citus, and return its rows."""
        return owner_of(self.urls[node]).execute(statement, *arguments)

    def node_of(self, merchant_id: str) -> str:
        """Return the name of the node that has the merchant's rows."""
        port = self.execute(COORDINATOR, _PLACEMENT, merchant_id)[0]["nodeport"]
        return next(node for node, url in self.urls.items() if urlsplit(url).port == port)

    def create_world_on(self, node: str, stack: Stack, **body: Any) -> World:
        """Create merchants until the rows of one are on this node, and return it. `body`: see World.create."""
        while True:
            world = World.create(stack, **body)
            if self.node_of(world.merchant_id) == node:
                return world
            world.client.close()

    def sandbox(self, entry: str) -> Stack:
        """Return a sandbox whose DATABASE_URL names this node. Start it if necessary. All share a Redis and a secret key."""
        if entry not in self._sandboxes:
            self._sandboxes[entry] = self._start_sandbox(entry)
        return self._sandboxes[entry][1]

    def _start_sandbox(self, entry: str) -> "tuple[subprocess.Popen[bytes], Stack]":
        env = environment() | {"DATABASE_URL": self.urls[entry], "SANDBOX_SECRET_KEY": _SECRET_KEY}
        env["SANDBOX_WEBHOOK_ALLOW"] = "loopback"
        for _, other in self._sandboxes.values():
            env["REDIS_URL"] = other.redis_url
        with tempfile.TemporaryDirectory(prefix=f"psp-citus-{entry}-") as folder:
            return start_sandbox(Path(folder), "--ephemeral", env=env)

    def create_database(self, name: str) -> dict[str, str]:
        """Create a further database on all nodes, an empty one that has its own cluster. Return its URL by node."""
        urls = {node: urlunsplit(urlsplit(url)._replace(path=f"/{name}")) for node, url in self.urls.items()}
        for node, url in urls.items():
            self.execute(node, f"CREATE DATABASE {name}")
            owner_of(url).execute("CREATE EXTENSION citus")
        for node, url in urls.items():
            join = "citus_set_coordinator_host" if node == COORDINATOR else "citus_add_node"
            owner_of(urls[COORDINATOR]).execute(f"SELECT {join}($1, $2)", urlsplit(url).hostname, urlsplit(url).port)
        return urls

    def stop_sandboxes(self) -> None:
        """Stop them, the one with the shared Redis last."""
        while self._sandboxes:
            end(self._sandboxes.popitem()[1][0])


@contextlib.contextmanager
def running_cluster() -> Iterator[CitusCluster]:
    """Yield a cluster whose database is distributed. Stops it at the end. Skips the test if there is no script to start one."""
    given = os.environ.get("PSP_CITUS_CLUSTER", "")
    script = Path(given) if given else _PROJECT.parent / "shared" / "citus" / "cluster"
    if not script.exists():
        pytest.skip(f"no Citus: {script} does not exist, and PSP_CITUS_CLUSTER names no other script that starts a cluster")
    # Not in a folder that only this user can enter: the script may run PostgreSQL as another user.
    folder = Path(tempfile.gettempdir()) / f"psp-citus-{uuid.uuid4().hex[:12]}"
    try:
        printed = _run(script, "start", folder, len(WORKERS), sys.executable).split("\n")
        ports = dict(line.split()[:2] for line in printed[1:] if line)
        parts = urlsplit(printed[0])
        urls = {node: urlunsplit(parts._replace(netloc=f"{parts.username}@{parts.hostname}:{ports[node]}")) for node in NODES}
        asyncio.run(distribute(urls[COORDINATOR], SHARDS, APPLICATION_ROLE, lambda _: None, lambda *_: None))
        cluster = CitusCluster(script, folder, urls)
        try:
            yield cluster
        finally:
            cluster.stop_sandboxes()
    finally:
        _run(script, "stop", folder)


def _runs(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # a zombie remains if nobody waits for the process
    return False


def _run(script: Path, *arguments: object) -> str:
    done = subprocess.run([str(script), *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout
