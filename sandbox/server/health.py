"""`/health`, `/health/ready` and `/metrics`: public, without an API key."""

import asyncio

from sandbox.http.operation import get
from sandbox.http.request import Request
from sandbox.http.responses import Response
from sandbox.infrastructure.metrics import exposition
from sandbox.server.readiness import Readiness, Ready


class HealthApi:
    """The health and metrics operations."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    @get("/health", "Check liveness", {200: dict[str, str]}, access="public")
    async def health(self, request: Request) -> dict[str, str]:
        return {"status": "alive"}

    @get(
        "/health/ready",
        "Check readiness: stores, migrations and a worker",
        {200: Ready},
        access="public",
        errors=("UNAVAILABLE",),
        description="Responds within 5 seconds. `errors` names each unavailable part. On a distributed database, "
        "`nodes` has the status of each node. If some are down, `status` is `degraded`: merchants on the others are served.",
    )
    async def ready(self, request: Request) -> Ready:
        return await self._readiness.require()

    @get("/metrics", "Get Prometheus metrics", {200: str}, access="public", media_type="text/plain")
    async def metrics(self, request: Request) -> Response:
        return Response(200, await asyncio.to_thread(exposition), "text/plain; version=0.0.4")
