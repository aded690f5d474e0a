"""A container with the whole sandbox, for Testcontainers.

    with PspSandboxContainer("registry.example.com/psp-sandbox") as psp:
        psp.client.payouts.create(...)

The image is the target `all-in-one` of the Dockerfile: `docker build --target all-in-one -t psp-sandbox:all-in-one .`
It needs the extra `psp-sandbox[testcontainers]`.
"""

import json
import secrets
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

try:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import HealthcheckWaitStrategy
except ImportError as error:
    raise ImportError("Install psp-sandbox[testcontainers] to run the sandbox in a container.") from error

if TYPE_CHECKING:
    from psp_sandbox.client import Client

IMAGE: Final = "psp-sandbox:all-in-one"
API_PORT: Final = 8000
IPN_PORT: Final = 8001
READY_FILE: Final = "/tmp/psp-ready.json"  # noqa: S108 (a path in the container)
HOST: Final = "host.docker.internal"
"""The name under which the container reaches programs on the Docker host, such as the webhook receiver of a test."""


class PspSandboxContainer(DockerContainer):
    """A sandbox in one container, with fresh data. `start` returns when it is ready.

    `keywords` are those of DockerContainer. Raises docker.errors.DockerException if no Docker daemon runs.
    """

    def __init__(self, image: str = IMAGE, *, admin_key: str | None = None, timeout: int = 120, **keywords: Any) -> None:
        """Describe the container, without starting it.

        `admin_key` is the operator's key, of at least 16 characters; by default a random one. `timeout` is in seconds.
        """
        # Docker Desktop knows this name; on Linux it must be added.
        super().__init__(image, **{"extra_hosts": {HOST: "host-gateway"}, **keywords})
        self.admin_key = admin_key or f"ak_{secrets.token_hex(24)}"
        self.with_env("SANDBOX_ADMIN_KEY", self.admin_key)
        self.with_exposed_ports(API_PORT, IPN_PORT)
        self.waiting_for(HealthcheckWaitStrategy().with_startup_timeout(timeout))

    def start(self) -> Self:
        """Start the container and wait until the sandbox is ready. Raises TimeoutError, or RuntimeError if it is unhealthy."""
        self._forget()
        return super().start()

    def stop(self, *arguments: Any, **keywords: Any) -> None:
        """Close the client, and remove the container. The arguments are those of DockerContainer."""
        self._forget()
        super().stop(*arguments, **keywords)

    def _forget(self) -> None:
        """Forget the keys of an earlier start, and close the client, whose connections lead to that container."""
        self.__dict__.pop("_ready", None)
        client: Client | None = self.__dict__.pop("client", None)
        if client is not None:
            client.close()

    @property
    def url(self) -> str:
        """The URL of the API."""
        return self._url(API_PORT)

    @property
    def ipn_url(self) -> str:
        """The URL of the IPN receiver."""
        return self._url(IPN_PORT)

    @property
    def api_key(self) -> str:
        """The demo merchant's key."""
        return self._ready["api_key"]

    @property
    def ipn_secret(self) -> str:
        """The secret that signs the demo merchant's IPNs."""
        return self._ready["ipn_secret"]

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that `psp`, the client and the pytest plugin read."""
        return {
            "PSP_URL": self.url,
            "PSP_API_KEY": self.api_key,
            "PSP_ADMIN_KEY": self.admin_key,
            "PSP_IPN_URL": self.ipn_url,
            "PSP_IPN_SECRET": self.ipn_secret,
        }

    @cached_property
    def client(self) -> "Client":
        """A client with the demo merchant's key and the operator's."""
        from psp_sandbox.client import Client

        return Client(self.url, api_key=self.api_key, admin_key=self.admin_key)

    def host_url(self, port: int) -> str:
        """Return the URL for webhooks to a program on this machine. On Linux it must listen on all addresses (0.0.0.0)."""
        return f"http://{HOST}:{port}"

    def _url(self, port: int) -> str:
        return f"http://{self.get_container_host_ip()}:{self.get_exposed_port(port)}"

    @cached_property
    def _ready(self) -> dict[str, str]:
        result = self.exec(["cat", READY_FILE])
        if result.exit_code != 0:
            raise RuntimeError(f"The container is not ready: {result.output.decode(errors='replace').strip()}")
        found: dict[str, str] = json.loads(result.output)
        return found
