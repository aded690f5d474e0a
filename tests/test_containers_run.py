"""The images and compose files in a container engine. `make containers` runs these tests; without it they are skipped."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.harness.engine import IMAGE, ROOT, Project, docker, project
from tests.harness.waiting import until

if TYPE_CHECKING:
    from psp_sandbox.testcontainers import PspSandboxContainer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("PSP_CONTAINERS" not in os.environ, reason="`make containers` runs it, with a container engine"),
]
DURABLE = ("api", "worker", "ipn", "postgres", "redis")
PROBE = r"""
id -u; grep -E '^(CapEff|NoNewPrivs)' /proc/1/status | tr -d '\t'
touch /written 2>/dev/null && echo writable || echo read-only
"""
RECEIVER = """
import http.server
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.rfile.read(int(self.headers["content-length"])).decode(), flush=True)
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("", 9000), Receiver).serve_forever()
"""
PLUGIN_TESTS = ("tests/test_plugin.py", "tests/test_plugin_apps.py", "tests/test_plugin_failures.py")
CITUS = ("docker-compose.yml", "compose.citus.yml")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Yield a sandbox of docker-compose.yml, freshly built."""
    with project(tmp_path_factory.mktemp("compose")) as started:
        yield started


@pytest.fixture(scope="module")
def key(stack: Project) -> str:
    """Return the demo merchant's key."""
    return stack.seeds()["api_key"]


def test_every_container_is_healthy_unprivileged_and_cannot_write_to_its_image(stack: Project) -> None:
    containers = stack.containers()
    assert sorted(containers) == sorted(DURABLE)
    for service, container in containers.items():
        assert container["State"]["Health"]["Status"] == "healthy", service
        user, *status, written = stack.compose("exec", "-T", service, "sh", "-c", PROBE).split()
        assert user != "0", service
        assert status == ["CapEff:0000000000000000", "NoNewPrivs:1"], service
        assert written == "read-only", service


def test_a_merchant_created_from_another_container_pays_and_gets_its_webhook_there(stack: Project) -> None:
    merchant = stack.psp("merchants", "create", "shop", "--opening-balance", "1000.00")
    receiver = f"{stack.name}-receiver"
    docker("run", "--detach", "--name", receiver, "--network", stack.network, IMAGE, "python", "-c", RECEIVER)
    try:
        stack.psp("endpoints", "create", f"http://{receiver}:9000/webhooks", key=merchant["api_key"])
        payout = stack.pay(merchant["api_key"], "250.00")
        until(lambda: f'"{payout}"' in (logs := docker("logs", receiver)) and "payout.succeeded" in logs, 60)
    finally:
        docker("rm", "--force", receiver)
    assert stack.request("/api/v1/balance", merchant["api_key"]).json()["available_balance"] == "750.00"


def test_the_logs_contain_no_key(stack: Project, key: str) -> None:
    stack.pay(key)
    logs = stack.compose("logs")
    assert "payout" in logs or "request" in logs
    assert key not in logs
    assert stack.admin_key not in logs


@pytest.mark.parametrize("store", ["postgres", "redis"])
def test_a_stopped_store_is_named_until_it_is_back(stack: Project, key: str, store: str) -> None:
    payout = stack.pay(key)
    stack.compose("kill", store)
    part = {"postgres": "database", "redis": "redis"}[store]
    until(lambda: (found := stack.readiness()) and found.status_code == 503 and part in found.text, 60, 0.2)
    stack.compose("start", store)
    stack.until_ready()
    assert stack.request(f"/api/v1/payouts/{payout}", key).json()["status"] == "SUCCESS"
    stack.pay(key)


@pytest.mark.parametrize("service", DURABLE)
def test_a_crashed_container_comes_back_by_itself(stack: Project, key: str, service: str) -> None:
    payout = stack.pay(key)
    stack.crash(service)
    until(lambda: stack.containers().get(service, {}).get("RestartCount"), 60, 0.2)
    stack.until_ready()
    stack.compose("up", "--wait", "--no-recreate")
    assert stack.request(f"/api/v1/payouts/{payout}", key).json()["status"] == "SUCCESS"
    stack.pay(key)


@pytest.mark.parametrize("service", DURABLE)
def test_a_restart_loses_nothing(stack: Project, key: str, service: str) -> None:
    payout = stack.pay(key)
    stack.compose("restart", service)
    stack.until_ready()
    assert stack.request(f"/api/v1/payouts/{payout}", key).json()["status"] == "SUCCESS"
    stack.pay(key)


def test_the_volume_keeps_money_and_keys_when_all_containers_are_removed(stack: Project, key: str) -> None:
    payout = stack.pay(key)
    balance = stack.request("/api/v1/balance", key).json()
    stack.compose("down")
    stack.compose("up", "--wait", "--scale", "worker=2")
    assert stack.request(f"/api/v1/payouts/{payout}", key).json()["status"] == "SUCCESS"
    assert stack.request("/api/v1/balance", key).json() == balance
    assert stack.seeds()["api_key"] == key


@pytest.fixture(scope="module")
def distributed(stack: Project, key: str) -> Project:
    """Return the same sandbox, its database with all data converted to a distributed one, by the steps that are documented."""
    stack.pay(key)
    stack.compose("stop", "api", "worker", "ipn")
    stack.files = CITUS
    stack.compose("up", "--wait")
    return stack


def test_a_database_with_data_becomes_a_distributed_one(distributed: Project, key: str) -> None:
    found = distributed.request("/health/ready").json()
    assert [(node["status"], node["node"].partition(":")[0]) for node in found["nodes"]] == [
        ("up", name) for name in ("postgres", "node1", "node2")
    ]
    distributed.pay(key)
    assert json.loads(distributed.compose("exec", "-T", "-e", f"PSP_API_KEY={key}", "api", "psp", "audit", "--json"))["ok"]


def test_a_killed_node_takes_only_its_merchants_along_and_comes_back(distributed: Project) -> None:
    keys = [
        distributed.psp("merchants", "create", f"m{number}", "--opening-balance", "100.00")["api_key"] for number in range(6)
    ]
    for merchant in keys:
        distributed.pay(merchant)
    distributed.compose("kill", "node1")
    until(lambda: (found := distributed.readiness()) and found.status_code == 200 and found.json()["status"] == "degraded", 60)
    statuses = {distributed.request("/api/v1/balance", merchant).status_code for merchant in keys}
    assert 200 in statuses
    assert statuses <= {200, 503}
    distributed.compose("start", "node1")
    distributed.until_ready()
    for merchant in keys:
        distributed.pay(merchant)


@pytest.fixture(scope="module")
def container() -> "Iterator[PspSandboxContainer]":
    """Yield a container of the target `all-in-one`, freshly built."""
    from psp_sandbox.testcontainers import IMAGE as ALL_IN_ONE
    from psp_sandbox.testcontainers import PspSandboxContainer

    docker("build", "--target", "all-in-one", "-t", ALL_IN_ONE, ".")
    with PspSandboxContainer() as started:
        yield started


def test_one_container_has_the_whole_sandbox(container: "PspSandboxContainer") -> None:
    assert container.client.balance.get().available_balance == 1_000_000
    assert container.exec(["id", "-u"]).output.strip() != b"0"
    logs = b"".join(container.get_logs())
    assert container.api_key.encode() not in logs
    assert container.admin_key.encode() not in logs


def test_the_plugins_own_tests_pass_with_the_sandbox_in_a_container(container: "PspSandboxContainer") -> None:
    """Its receiver listens where containers reach this machine: at the bridge's address."""
    gateway = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}").strip()
    options = ["--psp-url", container.url, "--psp-admin-key", container.admin_key, "--psp-webhook-host", gateway]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", *PLUGIN_TESTS], cwd=ROOT,
        env=os.environ | {"PSP_TEST_PLUGIN": shlex.join(options)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
