"""A merchant that another session keeps locked does not delay other merchants. Its own requests succeed after the release."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import httpx
import pytest

from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, close_pool, open_pool, transaction
from sandbox.infrastructure.large_work import LARGE_BATCH
from sandbox.unit_of_work.runner import LARGE_COMMANDS
from tests.harness.locks import ACCOUNTS, WORLDS, lock_held, locked_elsewhere
from tests.harness.waiting import until
from tests.harness.world import Stack, World

MAX_LOCKED = 10


@pytest.fixture
async def pool(stack: Stack) -> AsyncIterator[None]:
    await open_pool(stack.database_url, 1)
    yield
    await close_pool()


async def test_a_process_that_stops_in_a_transaction_loses_its_locks(stack: Stack, pool: None) -> None:
    with World.create(stack, opening_balance="1000.00") as world:

        async def stop_in_a_transaction() -> None:
            async with transaction(world.merchant_id) as conn:
                await conn.execute(WORLDS, [world.merchant_id])
                # From here on, this process does nothing, as if it were stopped. The API waits for the lock.
                await asyncio.to_thread(world.create_payout)
                await conn.execute(WORLDS, [world.merchant_id])

        with pytest.raises(CONNECTION_ERRORS):
            await stop_in_a_transaction()
        world.assert_clean()


@pytest.fixture
def worlds(stack: Stack) -> Iterator[list[World]]:
    with ExitStack() as opened:
        yield [opened.enter_context(World.create(stack, opening_balance="1000.00")) for _ in range(MAX_LOCKED + 20)]


@pytest.mark.parametrize("count", [1, MAX_LOCKED])
@pytest.mark.parametrize("statement", [WORLDS, ACCOUNTS], ids=["worlds", "accounts"])
async def test_locked_merchants_delay_no_other_merchant(stack: Stack, worlds: list[World], count: int, statement: str) -> None:
    """While the lock is held, other merchants' payouts are created and paid; after its release, the locked merchants' are."""
    locked, others = worlds[:count], worlds[MAX_LOCKED:]
    bodies = {world.merchant_id: world.payout_body() for world in locked}
    async with httpx.AsyncClient(base_url=stack.api_url, timeout=60) as client:

        async def create(world: World, body: dict[str, object], key: str) -> httpx.Response:
            headers = {"X-API-KEY": world.api_key, "X-IDEMPOTENCY-KEY": key}
            return await client.post("/api/v1/payouts", json=body, headers=headers)

        async with locked_elsewhere(stack, locked, statement) as locks:
            waiting = [asyncio.create_task(create(world, bodies[world.merchant_id], "locked")) for world in locked]
            for number in range(3):
                created = await asyncio.gather(*(create(world, world.payout_body(), str(number)) for world in others))
                assert {response.status_code for response in created} == {201}
            for world, response in zip(others, created, strict=True):
                await asyncio.to_thread(world.wait_for, response.json()["id"], "SUCCESS")
            await asyncio.to_thread(until, locks.awaited)
            assert not any(task.done() for task in waiting)
        first = await asyncio.gather(*waiting)
        assert {response.status_code for response in first} == {201}
        again = await asyncio.gather(*(create(world, bodies[world.merchant_id], "locked") for world in locked))
        assert [response.content for response in again] == [response.content for response in first]
        assert {response.headers["idempotent-replayed"] for response in again} == {"true"}
    for world, response in zip(locked, first, strict=True):
        await asyncio.to_thread(world.wait_for, response.json()["id"], "SUCCESS")
        assert await asyncio.to_thread(world.balance) == ("900.00", "0.00")
        await asyncio.to_thread(world.assert_clean)


async def test_a_large_batch_waits_for_that_of_another_process_and_delays_nobody(stack: Stack, worlds: list[World]) -> None:
    """Two at a time would use all cores. The lock is what the other process's transaction holds."""
    busy, other = worlds[:2]
    bodies = [busy.payout_body(amount="1.00") for _ in range(LARGE_BATCH + 1)]
    async with lock_held(stack, "SELECT pg_advisory_xact_lock($1)", LARGE_COMMANDS) as locks:
        batch = asyncio.create_task(asyncio.to_thread(busy.post, "/api/v1/payouts/batch", {"payouts": bodies}))
        await asyncio.to_thread(until, locks.awaited)
        created = await asyncio.to_thread(other.create_payout)
        await asyncio.to_thread(other.wait_for, created["id"], "SUCCESS")
        assert not batch.done()
    answer = await batch
    assert (answer.status_code, {item["status"] for item in answer.json()["results"]}) == (200, {201})
