"""Readiness names each missing dependency and responds in time even if one hangs, in the API, the IPN receiver and workers."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import httpx
import pytest

from sandbox.http.operation import operations_of
from sandbox.http.routes import create_litestar
from sandbox.infrastructure.db.engine import close_pool, open_pool
from sandbox.infrastructure.redis_client import connect
from sandbox.server.health import HealthApi
from sandbox.server.readiness import CHECK_TIMEOUT, Readiness
from sandbox.server.request_log import RequestLog
from tests.harness.proxy import Proxy
from tests.harness.waiting import until
from tests.harness.world import Stack
from worker.health import HealthServer

UNMIGRATED = "not_migrated"


@asynccontextmanager
async def health_client(
    database_url: str, redis_url: str, check_timeout: float = CHECK_TIMEOUT
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an application that has only the health routes and uses these stores."""
    redis = connect(redis_url)
    readiness = Readiness(redis, timeout=check_timeout)
    app = create_litestar(operations_of(HealthApi(readiness)), (), "http://sandbox.test", 0)
    await open_pool(database_url, 2)
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(RequestLog(app)), base_url="http://sandbox.test") as client:
            yield client
    finally:
        await readiness.close()
        await redis.aclose()
        await close_pool()


def missing(response: httpx.Response) -> set[str]:
    """Return the dependencies that a 503 names. The response must be a problem with Retry-After."""
    assert response.status_code == 503, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "1"
    problem = response.json()
    assert (problem["code"], problem["request_id"]) == ("UNAVAILABLE", response.headers["x-request-id"])
    for error in problem["errors"]:
        assert error["message"] in problem["detail"]
    return {error["field"] for error in problem["errors"]}


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Yield a port that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_ready_if_no_dependency_is_missing(stack: Stack) -> None:
    async with health_client(stack.database_url, stack.redis_url) as client:
        assert (await until_ready(client)).json() == {"status": "ready"}


async def test_postgresql_down_is_named(stack: Stack, closed_port: int) -> None:
    async with health_client(f"postgresql://u@127.0.0.1:{closed_port}/x", stack.redis_url) as client:
        assert missing(await client.get("/health/ready")) == {"database"}
        assert (await client.head("/health/ready")).status_code == 503
        assert (await client.get("/health")).json() == {"status": "alive"}


async def test_redis_down_is_named_and_the_unknown_worker_is_not(stack: Stack, closed_port: int) -> None:
    async with health_client(stack.database_url, f"redis://127.0.0.1:{closed_port}") as client:
        assert missing(await client.get("/health/ready")) == {"redis"}


async def test_a_missing_worker_is_named(stack: Stack) -> None:
    async with health_client(stack.database_url, f"{stack.redis_url}?db=1") as client:
        assert missing(await client.get("/health/ready")) == {"worker"}


async def test_a_database_without_tables_is_named(stack: Stack) -> None:
    admin = await asyncpg.connect(stack.database_url)
    try:
        await admin.execute(f"DROP DATABASE IF EXISTS {UNMIGRATED}")
        await admin.execute(f"CREATE DATABASE {UNMIGRATED}")
        async with health_client(stack.database_url.replace("/sandbox?", f"/{UNMIGRATED}?"), stack.redis_url) as client:
            assert missing(await client.get("/health/ready")) == {"migrated"}
    finally:
        await admin.execute(f"DROP DATABASE IF EXISTS {UNMIGRATED} WITH (FORCE)")
        await admin.close()


async def test_a_missing_migration_is_named(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    from sandbox.infrastructure.db.migrate import migration_ids

    known = migration_ids() | {"2999-01-01T00:00:00:000000"}
    monkeypatch.setattr("sandbox.server.readiness.migration_ids", lambda: known)
    async with health_client(stack.database_url, stack.redis_url) as client:
        response = await client.get("/health/ready")
        assert missing(response) == {"migrated"}
        assert f"1 of {len(known)} migrations" in response.json()["detail"]


async def test_stores_that_never_respond_are_named(silent_port: int) -> None:
    # Without the check's own timeout there would be no response, because these stores never send anything.
    async with health_client(
        f"postgresql://u@127.0.0.1:{silent_port}/x", f"redis://127.0.0.1:{silent_port}", check_timeout=0.2
    ) as client:
        assert missing(await client.get("/health/ready")) == {"database", "redis"}


@pytest.mark.parametrize("stopped", [("database",), ("redis",), ("database", "redis")])
async def test_stores_that_freeze_are_named_and_found_again(stack: Stack, stopped: tuple[str, ...]) -> None:
    folder = stack.database_url.partition("?host=")[2]
    database, redis = Proxy(f"{folder}/.s.PGSQL.5432"), Proxy(stack.redis_url.removeprefix("unix://"))
    proxies = {"database": database, "redis": redis}
    async with AsyncExitStack() as stores:
        for proxy in proxies.values():
            await stores.enter_async_context(proxy.serving())
        database_url = f"postgresql://postgres@127.0.0.1:{database.port}/sandbox?sslmode=disable"
        async with health_client(database_url, f"redis://127.0.0.1:{redis.port}") as client:
            await until_ready(client)
        async with health_client(database_url, f"redis://127.0.0.1:{redis.port}", check_timeout=0.5) as client:
            await until_ready(client)  # both stores are connected now
            for name in stopped:
                proxies[name].flows.clear()
            # Every request gets a response, although the stores do not respond.
            for response in await asyncio.gather(*(client.get("/health/ready") for _ in range(5))):
                assert missing(response) >= set(stopped)
            async with asyncio.timeout(60):
                # On a slow machine, the working store can also exceed this short timeout.
                while missing(await client.get("/health/ready")) != set(stopped):
                    pass
            for name in stopped:
                proxies[name].flows.set()
            await until_ready(client)


async def until_ready(client: httpx.AsyncClient) -> httpx.Response:
    async with asyncio.timeout(60):
        while True:
            response = await client.get("/health/ready")
            if response.status_code == 200:
                return response
            await asyncio.sleep(0.02)


def test_the_check_timeout_keeps_the_response_within_three_seconds() -> None:
    assert CHECK_TIMEOUT <= 2.5


def test_the_running_api_and_ipn_are_ready(stack: Stack) -> None:
    for url in (stack.api_url, stack.ipn_url):
        for path, status in (("/health", "alive"), ("/health/ready", "ready")):
            until(lambda at=url + path, expected={"status": status}: httpx.get(at, timeout=60).json() == expected)
            until(lambda at=url + path: httpx.head(at, timeout=60).status_code == 200)


@contextlib.asynccontextmanager
async def worker_health(database_url: str, redis_url: str) -> AsyncIterator[str]:
    """Yield the URL of a worker's health server with these stores."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    redis = connect(redis_url)
    server = HealthServer(Readiness(redis, with_worker=False, timeout=0.2), "http://sandbox.test")
    await open_pool(database_url, 2)
    await server.start("127.0.0.1", port)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.close()
        await redis.aclose()
        await close_pool()


async def test_a_worker_serves_its_health_and_metrics(stack: Stack, closed_port: int) -> None:
    async with worker_health(stack.database_url, stack.redis_url) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        await until_ready(client)
        assert (await client.get("/health")).json() == {"status": "alive"}
        assert (await client.head("/health")).status_code == 200
        metrics = await client.get("/metrics")
        assert "psp_" in metrics.text
        assert metrics.headers["content-type"].startswith("text/plain; version=")
    async with (
        worker_health(f"postgresql://u@127.0.0.1:{closed_port}/x", f"redis://127.0.0.1:{closed_port}") as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        assert missing(await client.get("/health/ready")) == {"database", "redis"}
