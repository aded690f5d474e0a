"""`/health`, `/health/ready` and `/metrics`: public, with no key."""

import asyncio
from typing import Any

import asyncpg
from litestar import Router, get
from litestar.response.base import ASGIResponse

from sandbox.db.engine import LOST, connection
from sandbox.http.answers import ok
from sandbox.http.entry import HttpRequest
from sandbox.http.operation import Operation
from sandbox.metrics import exposition
from sandbox.wake import Waker


def health_router(waker: Waker) -> Router:
    """The routes of health."""

    @get("/health", operation_id="health", opt={"operation": Operation("Alive", {200: dict[str, str]}, security="none")})
    async def health(request: HttpRequest) -> ASGIResponse:
        return ok({"status": "alive"})

    @get(
        "/health/ready", operation_id="ready",
        opt={"operation": Operation(
            "Stores reachable, migrated, and a worker seen", {200: dict[str, Any], 503: dict[str, Any]}, security="none",
        )},
    )  # fmt: skip
    async def ready(request: HttpRequest) -> ASGIResponse:
        (database, migrated), (redis, worker) = await asyncio.gather(_database(), _workers(waker))
        checks = {"database": database, "migrated": migrated, "redis": redis, "worker": worker}
        whole = all(checks.values())
        response = ok({"status": "ready" if whole else "not ready", "checks": checks}, 200 if whole else 503)
        if not whole:
            response.headers.setdefault("retry-after", "1")
        return response

    @get(
        "/metrics", operation_id="metrics",
        opt={"operation": Operation("Metrics for Prometheus", {200: str}, security="none", raw_media_type="text/plain")},
    )  # fmt: skip
    async def metrics(request: HttpRequest) -> ASGIResponse:
        return ASGIResponse(body=await asyncio.to_thread(exposition), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Router("/", route_handlers=[health, ready, metrics])


async def _database() -> tuple[bool, bool]:
    try:
        async with connection() as conn:
            return True, bool(await conn.fetchval("SELECT count(*) > 0 FROM migration"))
    except LOST:
        return False, False
    except asyncpg.PostgresError:
        return True, False


async def _workers(waker: Waker) -> tuple[bool, bool]:
    return await waker.reachable(), await waker.worker_seen()
