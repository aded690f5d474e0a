"""A container engine with compose: projects of this repository's compose files, with names and ports of their own."""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.harness.waiting import until

ROOT = Path(__file__).parent.parent.parent
IMAGE = "psp-sandbox"
"""The image that docker-compose.yml builds."""
PORTS = """
services:
  api: { ports: !override ["127.0.0.1::8000"] }
  ipn: { ports: !override ["127.0.0.1::8001"] }
"""
"""Free ports instead of those of docker-compose.yml, which another sandbox may have."""
KILL = "import os, sys; os.kill(int(sys.argv[1]), 9)"


def docker(*arguments: str, check: bool = True, **variables: str) -> str:
    """Run docker in the root of the repository, and return its output. If `check`, raise AssertionError if it fails."""
    completed = subprocess.run(
        ["docker", *arguments], cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0 or not check, f"docker {' '.join(arguments)}\n{completed.stdout}\n{completed.stderr}"
    return completed.stdout


class Project:
    """A running compose project. `files` are the compose files that its commands use."""

    def __init__(self, name: str, ports: Path) -> None:
        self.name = name
        self.files: Sequence[str] = ("docker-compose.yml",)
        self.admin_key = f"ak_{secrets.token_hex(24)}"
        self._ports = ports
        self._variables = {
            "SANDBOX_ADMIN_KEY": self.admin_key,
            "SANDBOX_SECRET_KEY": secrets.token_urlsafe(32) + "=",
            "SANDBOX_WEBHOOK_ALLOW": "172.16.0.0/12,192.168.0.0/16",
        }

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run `docker compose` for this project, and return its output."""
        files = [part for file in (*self.files, str(self._ports)) for part in ("-f", file)]
        return docker("compose", "-p", self.name, *files, *arguments, check=check, **self._variables)

    def seeds(self) -> dict[str, str]:
        """Return the demo merchants' keys, by the command that docs/operations.md gives."""
        out = self.compose("run", "--rm", "migrate", "python", "-m", "psp_sandbox.application", "seeds")
        found: dict[str, str] = json.loads(out)
        return found

    def psp(self, *arguments: str, key: str = "") -> Any:
        """Run `psp … --json` in a container beside the others, and return the JSON that it prints."""
        variables = {"PSP_URL": "http://api:8000", "PSP_ADMIN_KEY": self.admin_key, "PSP_API_KEY": key}
        options = [part for name, value in variables.items() if value for part in ("-e", f"{name}={value}")]
        return json.loads(docker("run", "--rm", "--network", self.network, *options, IMAGE, "psp", *arguments, "--json"))

    @property
    def network(self) -> str:
        """The name of the network that the containers share."""
        return f"{self.name}_default"

    def request(self, path: str, key: str = "", **body: Any) -> httpx.Response:
        """Call the API through the port on the host: GET, or POST with a body."""
        url = f"http://{self.compose('port', 'api', '8000').strip()}{path}"
        headers = {"X-API-KEY": key, "X-IDEMPOTENCY-KEY": secrets.token_hex(8)}
        return httpx.request("POST" if body else "GET", url, headers=headers, json=body or None, timeout=30)

    def pay(self, key: str, amount: str = "10.00") -> str:
        """Create a payout that succeeds, wait until it has, and return its id."""
        reference = secrets.token_hex(8)
        destination = {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}
        created = self.request("/api/v1/payouts", key, merchant_reference=reference, amount=amount, **destination)
        assert created.status_code == 201, created.text
        payout: str = created.json()["id"]
        paid = self.request(f"/api/v1/payouts/{payout}?wait_for=SUCCESS", key)
        assert paid.json()["status"] == "SUCCESS", paid.text
        return payout

    def readiness(self) -> httpx.Response | None:
        """Return what /health/ready responds, or None if nothing listens."""
        try:
            return self.request("/health/ready")
        except httpx.TransportError:
            return None

    def until_ready(self) -> None:
        """Wait until /health/ready responds with 200 and nothing else than `ready`."""
        until(lambda: (found := self.readiness()) and found.status_code == 200 and found.json()["status"] == "ready", 120, 0.2)

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what `docker inspect` says of each running container, by service."""
        ids = self.compose("ps", "-q").split()
        found = json.loads(docker("inspect", *ids))
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def crash(self, service: str) -> None:
        """Kill the main process of a container from outside: unlike `docker kill`, the engine restarts it then."""
        pid = self.containers()[service]["State"]["Pid"]
        docker("run", "--rm", "--pid", "host", "--user", "0", IMAGE, "python", "-c", KILL, str(pid))


@contextmanager
def project(folder: Path) -> Iterator[Project]:
    """Start docker-compose.yml as documented, and remove everything of it at the end, data included."""
    (folder / "ports.yml").write_text(PORTS)
    started = Project(f"psp-test-{secrets.token_hex(4)}", folder / "ports.yml")
    try:
        started.compose("up", "--build", "--wait")
        yield started
    finally:
        started.compose("logs", check=False)
        started.compose("down", "--volumes", "--timeout", "5", check=False)
