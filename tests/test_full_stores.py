"""A full disk and a full Redis: readiness names the cause and the cure, and afterwards everything continues by itself."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError

from sandbox.domain.ids import MAX_ID
from sandbox.http.journal.journal import JournalEntry
from sandbox.http.rate_limit import RateLimiter
from sandbox.infrastructure.redis_client import connect
from sandbox.infrastructure.wake import WORKER_SEEN
from sandbox.server.readiness import Readiness
from sandbox.server.runtime.redis_server import redis_binary
from tests.harness.own_journal import OwnJournal
from tests.harness.own_sandbox import own_sandbox
from tests.harness.supervised import child_of, end, environment
from tests.harness.waiting import until
from tests.harness.world import World

DISK = "400m"
MEMORY = 8 * 1024 * 1024


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Yield a folder with a file system of its own."""
    folder = Path(tempfile.mkdtemp(prefix="psp-disk-", dir="/tmp"))
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "none", str(folder)], check=False, capture_output=True
    )
    try:
        if mounted.returncode != 0:
            pytest.skip("only root can mount a small file system")
        yield folder
    finally:
        if mounted.returncode == 0:
            subprocess.run(["/bin/umount", "-l", str(folder)], check=True)
        folder.rmdir()


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(2**20)):
            pass


def test_a_full_disk_is_named_and_ends_no_process(small_disk: Path, tmp_path: Path) -> None:
    filler = small_disk / "filler"
    with own_sandbox(tmp_path, "--data", str(small_disk / "data"), env=environment()) as (process, sandbox):
        api = child_of(psutil.Process(process.pid), "ipn.with_api")
        assert api is not None
        with World.create(sandbox, opening_balance="1000000.00") as world:
            assert readiness(sandbox.api_url).status_code == 200
            fill(filler)
            until(lambda: world.post("/api/v1/payouts", world.payout_body()).status_code == 503)
            response = readiness(sandbox.api_url)
            assert response.status_code == 503
            found = {error["field"]: error["message"] for error in response.json()["errors"]}
            assert "PostgreSQL cannot write, because its disk is full: free some space on it" in found["database"]
            assert "the disk of the data directory is full" in found["disk"]
            # Each is another metric: their pages are written for the first time now.
            for method in ("GET", "POST", "DELETE", "PATCH"):
                for operation in ("balance", "events", "payouts", "users", "webhook-endpoints", "webhook-deliveries"):
                    httpx.request(method, f"{sandbox.api_url}/api/v1/{operation}", timeout=60)
            assert "is full" in psp_up(small_disk / "second")
            filler.unlink()
            until(lambda: readiness(sandbox.api_url).status_code == 200)
            assert world.post("/api/v1/payouts", world.payout_body()).status_code == 201
        assert api.is_running()
    assert "restarting it" not in (tmp_path / "up.log").read_text()


def readiness(url: str) -> httpx.Response:
    return httpx.get(f"{url}/health/ready", timeout=60)


def psp_up(data: Path) -> str:
    """Return what a start that fails prints."""
    arguments = ["up", "--data", str(data), "--port", "0", "--ipn-port", "0"]
    ended = subprocess.run(
        [sys.executable, "-m", "sandbox.cli.entry", *arguments], env=environment(), check=False, capture_output=True, text=True
    )
    assert ended.returncode == 1
    return ended.stderr


@pytest.fixture
def small_redis() -> Iterator[str]:
    """Yield the URL of a Redis with little memory."""
    with tempfile.TemporaryDirectory(prefix="psp-redis-", dir="/tmp") as folder:
        socket = f"{folder}/redis.sock"
        settings = ["--port", "0", "--unixsocket", socket, "--save", "", "--maxmemory", str(MEMORY)]
        process = subprocess.Popen([str(redis_binary()), *settings], stdout=subprocess.DEVNULL)
        try:
            until(lambda: os.path.exists(socket))
            yield f"unix://{socket}"
        finally:
            end(process)


def call(number: int) -> JournalEntry:
    return JournalEntry(
        id=str(uuid.UUID(int=number)), at="2030-01-01T00:00:00Z", method="POST", path="/api/v1/payouts", query="", status=201,
        duration_ms=1.0, request_id=str(number), traceparent="", idempotency_key=None, replayed=False, api_key_id=None,
        request_headers={}, request_body="x" * 4000, response_body="x" * 4000, fault=None,
    )  # fmt: skip


async def test_journals_leave_memory_to_rate_limits_and_the_oldest_go_first(small_redis: str) -> None:
    journal, limiter = OwnJournal(small_redis), RateLimiter(small_redis)
    merchants = [str(uuid.UUID(int=number)) for number in range(40)]  # their journals have twice the memory
    try:
        for merchant in merchants:
            await journal.replace(merchant, [call(number) for number in range(50)])
            assert await limiter.acquire("api", merchant, merchant, 1, 60, 0) == 0
        kept = [len(await journal.page(merchant, MAX_ID, 100, lambda _: True)) for merchant in merchants]
        assert (kept[0], kept[-1]) == (0, 50)
        assert kept == sorted(kept)
        for merchant in merchants:
            assert await limiter.acquire("api", merchant, merchant, 1, 60, 0) > 0
    finally:
        await journal.close()
        await limiter.close()


async def test_a_full_redis_is_named_with_its_cure(small_redis: str, pool: None) -> None:
    redis, own = Redis.from_url(small_redis), connect(small_redis)
    checks = Readiness(own)
    try:
        redis.set(WORKER_SEEN, b"1")
        await until_ready(checks)
        for size in (100_000, 1000):  # the second fills what is too small for the first
            until(lambda size=size: not _stores(redis, bytes(size)))
        assert "Redis is out of memory" in (await checks.find_unavailable())["redis"]
        assert "raise its maxmemory" in (await checks.find_unavailable())["redis"]
        redis.delete(*redis.keys("other:*"))
        await until_ready(checks)
    finally:
        redis.close()
        await checks.close()
        await own.aclose()


def _stores(redis: "Redis[bytes]", value: bytes) -> bool:
    try:
        redis.set(f"other:{uuid.uuid4()}", value)
    except OutOfMemoryError:
        return False
    return True


async def until_ready(checks: Readiness) -> None:
    async with asyncio.timeout(60):
        while await checks.find_unavailable():  # noqa: ASYNC110 -- nothing tells when the stores are available
            await asyncio.sleep(0.02)
