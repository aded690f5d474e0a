"""`/health`, `/health/ready` and `/metrics`: public, with no key."""

import asyncio

import msgspec
from litestar import Router, get
from litestar.response.base import ASGIResponse

from sandbox.http.answers import ok
from sandbox.http.guard import HttpRequest
from sandbox.http.operation import Operation
from sandbox.infrastructure.metrics import exposition
from sandbox.server.readiness import Readiness


class Ready(msgspec.Struct):
    """The answer of `/health/ready` when nothing is missing."""

    status: str


def health_router(readiness: Readiness) -> Router:
    """The routes of health."""

    @get("/health", operation_id="health", opt={"operation": Operation("Alive", {200: dict[str, str]}, security="none")})
    async def health(request: HttpRequest) -> ASGIResponse:
        return ok({"status": "alive"})

    @get(
        "/health/ready", operation_id="ready",
        opt={"operation": Operation(
            "Check readiness: stores, migrations and a worker", {200: Ready}, security="none", errors=("UNAVAILABLE",),
            description="Answers within 3 seconds. `errors` names each part that is missing.",
        )},
    )  # fmt: skip
    async def ready(request: HttpRequest) -> ASGIResponse:
        await readiness.require()
        return ok(Ready("ready"))

    @get(
        "/metrics", operation_id="metrics",
        opt={"operation": Operation("Get Prometheus metrics", {200: str}, security="none", raw_media_type="text/plain")},
    )  # fmt: skip
    async def metrics(request: HttpRequest) -> ASGIResponse:
        return ASGIResponse(body=await asyncio.to_thread(exposition), media_type="text/plain; version=0.0.4")

    return Router("/", route_handlers=[health, ready, metrics])
