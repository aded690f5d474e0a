"""Health, metrics and this document."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from typing import Any

from psp_sandbox.client._callers import AsyncCaller
from psp_sandbox.client._calls import Call
from psp_sandbox.client.models.service import Ready, Root


class AsyncServiceApi:
    """Health, metrics and this document."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def root(self) -> Root:
        """List the sandbox's URLs."""
        return await self._caller.send(Call(Root, "GET", "/", auth="none"))

    async def health(self) -> dict[str, Any]:
        """Check liveness."""
        return await self._caller.send(Call(dict[str, Any], "GET", "/health", auth="none"))

    async def ready(self) -> Ready:
        """Check readiness: stores, migrations and a worker.

        Responds within 5 seconds. `errors` names each unavailable part. On a distributed database, `nodes` has the
        status of each node. If some are down, `status` is `degraded`: merchants on the others are served.
        """
        return await self._caller.send(Call(Ready, "GET", "/health/ready", auth="none"))

    async def metrics(self) -> str:
        """Get Prometheus metrics."""
        return await self._caller.send(Call(str, "GET", "/metrics", auth="none"))

    async def openapi(self) -> dict[str, Any]:
        """Get this document."""
        return await self._caller.send(Call(dict[str, Any], "GET", "/openapi.json", auth="none"))
