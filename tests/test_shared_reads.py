"""Reads that wait at the same time share a statement, and each sees everything committed before it arrived."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from sandbox.infrastructure.db.shared_reads import SharedReads
from tests.harness.world import World


class FakeTable:
    """A fake table. A statement sees the rows at the time it is sent, and returns when the test calls `release`."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.error: Exception | None = None
        self.sent: list[tuple[str, list[str]]] = []
        self.arrived = asyncio.Condition()
        self._semaphores: dict[str, asyncio.Semaphore] = {}

    async def read(self, merchant_id: str, keys: Sequence[str]) -> Mapping[str, int]:
        snapshot, error = dict(self.rows), self.error
        self.sent.append((merchant_id, list(keys)))
        async with self.arrived:
            self.arrived.notify_all()
        await self._semaphore(merchant_id).acquire()
        if error is not None:
            raise error
        return {key: snapshot[key] for key in keys if key in snapshot}

    def _semaphore(self, merchant_id: str) -> asyncio.Semaphore:
        return self._semaphores.setdefault(merchant_id, asyncio.Semaphore(0))

    def release(self, merchant_id: str, statements: int = 1) -> None:
        for _ in range(statements):
            self._semaphore(merchant_id).release()

    async def until_sent(self, statements: int) -> None:
        async with asyncio.timeout(30), self.arrived:
            await self.arrived.wait_for(lambda: len(self.sent) >= statements)


@pytest.fixture
async def table() -> FakeTable:
    return FakeTable()


@pytest.fixture
async def reads(table: FakeTable) -> SharedReads[int]:
    return SharedReads(table.read)


async def start_all(*reads: asyncio.Task[int | None]) -> None:
    """Let each task run until it waits for its read."""
    await asyncio.sleep(0)
    assert not any(read.done() for read in reads)


async def test_a_read_sees_what_was_committed_before_it_arrived(table: FakeTable, reads: SharedReads[int]) -> None:
    table.rows = {"a": 1}
    before = asyncio.create_task(reads.get("m", "a"))
    await table.until_sent(1)
    table.rows = {"a": 2}
    after = [asyncio.create_task(reads.get("m", key)) for key in ("a", "b", "a")]
    await start_all(*after)
    assert len(table.sent) == 1
    table.release("m", 2)
    assert await before == 1
    assert await asyncio.gather(*after) == [2, None, 2]
    assert table.sent == [("m", ["a"]), ("m", ["a", "b"])]


async def test_a_statement_has_at_most_256_keys(table: FakeTable, reads: SharedReads[int]) -> None:
    table.rows = {str(key): key for key in range(600)}
    table.release("m", 3)
    assert await asyncio.gather(*(reads.get("m", key) for key in table.rows)) == list(range(600))
    assert [len(keys) for _, keys in table.sent] == [256, 256, 88]


async def test_a_slow_statement_delays_no_other_merchant(table: FakeTable, reads: SharedReads[int]) -> None:
    table.rows = {"a": 1}
    slow = asyncio.create_task(reads.get("slow", "a"))
    await table.until_sent(1)
    table.release("quick")
    assert await reads.get("quick", "a") == 1
    assert not slow.done()
    table.release("slow")
    assert await slow == 1


async def test_an_error_reaches_only_the_requests_of_its_statement(table: FakeTable, reads: SharedReads[int]) -> None:
    table.rows, table.error = {"a": 1}, ConnectionError("lost")
    failing = [asyncio.create_task(reads.get("m", "a")) for _ in range(2)]
    await table.until_sent(1)
    table.error = None
    later = asyncio.create_task(reads.get("m", "a"))
    await start_all(later)
    table.release("m", 2)
    assert [type(result) for result in await asyncio.gather(*failing, return_exceptions=True)] == [ConnectionError] * 2
    assert await later == 1


async def test_a_cancelled_request_does_not_affect_the_others(table: FakeTable, reads: SharedReads[int]) -> None:
    table.rows = {"a": 1}
    cancelled, remaining = (asyncio.create_task(reads.get("m", "a")) for _ in range(2))
    await table.until_sent(1)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    table.release("m")
    assert await remaining == 1
    assert cancelled.cancelled()


async def test_no_request_waits_forever_if_the_reader_is_cancelled(table: FakeTable, reads: SharedReads[int]) -> None:
    reading = asyncio.create_task(reads.get("m", "a"))
    await table.until_sent(1)
    waiting = asyncio.create_task(reads.get("m", "b"))
    await start_all(waiting)
    reads._tasks["m"].cancel()
    async with asyncio.timeout(30):
        await asyncio.wait([reading, waiting])
    assert reading.cancelled()
    assert waiting.cancelled()
    table.rows = {"a": 1}
    table.release("m")
    assert await reads.get("m", "a") == 1


def test_a_client_reads_its_own_writes(world: World) -> None:
    """Other clients read continuously at the same time, so that a statement is nearly always running."""
    path = f"/api/v1/payouts/{world.create_payout('0004', amount='1.00')['id']}"
    done = threading.Event()

    def read() -> None:
        with httpx.Client(base_url=world.stack.api_url, headers={"X-API-KEY": world.api_key}, timeout=60) as client:
            while not done.is_set():
                assert client.get(path).is_success
                assert client.get("/api/v1/balance").is_success

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        try:
            for _ in range(20):
                topped_up = world.post("/sandbox/v1/balance/top-up", {"amount": "1.00"})
                assert topped_up.status_code == 200
                assert world.get("/api/v1/balance").json()["version"] >= topped_up.json()["version"]
                created = world.create_payout("0004", amount="1.00")
                assert world.get(f"/api/v1/payouts/{created['id']}").json()["id"] == created["id"]
        finally:
            done.set()
        for reader in readers:
            reader.result(60)
