"""Health, metrics and this document."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from typing import Any

from psp_sandbox.client._callers import Caller
from psp_sandbox.client._calls import Call
from psp_sandbox.client.models.service import Ready, Root


class ServiceApi:
    """Health, metrics and this document."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def root(self) -> Root:
        """List the sandbox's URLs."""
        return self._caller.send(Call(Root, "GET", "/", auth="none"))

    def health(self) -> dict[str, Any]:
        """Check liveness."""
        return self._caller.send(Call(dict[str, Any], "GET", "/health", auth="none"))

    def ready(self) -> Ready:
        """Check readiness: stores, migrations and a worker.

        Responds within 5 seconds. `errors` names each unavailable part. On a distributed database, `nodes` has the
        status of each node. If some are down, `status` is `degraded`: merchants on the others are served.
        """
        return self._caller.send(Call(Ready, "GET", "/health/ready", auth="none"))

    def metrics(self) -> str:
        """Get Prometheus metrics."""
        return self._caller.send(Call(str, "GET", "/metrics", auth="none"))

    def openapi(self) -> dict[str, Any]:
        """Get this document."""
        return self._caller.send(Call(dict[str, Any], "GET", "/openapi.json", auth="none"))
