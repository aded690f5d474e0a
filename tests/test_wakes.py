"""A wake starts work soon. One job covers many wakes, and a lost wake only delays the work until the next sweep."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from arq.connections import ArqRedis

from sandbox.directory.catalogue import load_directory
from sandbox.domain.payout_commands import CreatePayout
from sandbox.domain.unit import IdempotencyKey
from sandbox.infrastructure.wake import DELIVERIES, JOB, QUEUE, STEPS, Waker, connect, redis_settings, take_wake_ups
from sandbox.payouts.requests import CreatePayoutBody, new_payout
from sandbox.payouts.steps import take_due_steps
from tests.harness.receiver import Receiver
from tests.harness.work import request_of, units_of_work
from tests.harness.world import Stack, World
from worker.merchant_tasks import MerchantTasks


@asynccontextmanager
async def running_waker(stack: Stack) -> AsyncIterator[tuple[Waker, ArqRedis]]:
    """Yield a waker and a connection to its Redis database, which no worker of the sandbox reads."""
    url = f"{stack.redis_url}?db=7"
    redis = await connect(redis_settings(url))
    waker = Waker(url)
    waker.start()
    try:
        yield waker, redis
    finally:
        await waker.close()
        await redis.flushdb()
        await redis.aclose()


async def queued_jobs(redis: ArqRedis) -> list[str]:
    return [job.function for job in await redis.queued_jobs(queue_name=QUEUE)]


async def wait_for_jobs(redis: ArqRedis, count: int = 1) -> None:
    async with asyncio.timeout(60):
        while True:
            if len(await queued_jobs(redis)) >= count:
                return
            await asyncio.sleep(0.001)


async def take_wakes(redis: ArqRedis, count: int) -> set[tuple[str, str]]:
    """Take `count` wakes, as jobs do."""
    found: set[tuple[str, str]] = set()
    async with asyncio.timeout(60):
        while len(found) < count:
            found |= set(await take_wake_ups(redis))
    return found


async def test_one_job_covers_a_burst_of_wakes(stack: Stack) -> None:
    expected = {(kind, f"merchant-{number}") for number in range(50) for kind in (STEPS, DELIVERIES)}
    async with running_waker(stack) as (waker, redis):
        for _ in range(3):
            for kind, merchant_id in sorted(expected):
                waker.wake(kind, merchant_id)
        await wait_for_jobs(redis)
        assert await queued_jobs(redis) == [JOB]
        assert await take_wakes(redis, 100) == expected


async def test_a_wake_after_a_job_has_started_creates_another_job(stack: Stack) -> None:
    async with running_waker(stack) as (waker, redis):
        for number in range(1, 4):
            waker.wake(STEPS, f"merchant-{number}")
            await wait_for_jobs(redis, number)
            assert await take_wakes(redis, 1) == {(STEPS, f"merchant-{number}")}


async def test_the_next_job_takes_the_wakes_of_a_lost_job(stack: Stack) -> None:
    async with running_waker(stack) as (waker, redis):
        waker.wake(STEPS, "first")
        await wait_for_jobs(redis)
        await redis.delete(QUEUE)
        async with asyncio.timeout(60):
            while not await queued_jobs(redis):  # until the marker of the lost job has expired
                waker.wake(STEPS, "second")
                await asyncio.sleep(0.01)
        assert await take_wakes(redis, 2) == {(STEPS, "first"), (STEPS, "second")}


def create(merchant_id: str, reference: str) -> CreatePayout:
    body = CreatePayoutBody(
        merchant_reference=reference, amount=b'"1.00"', dest_type="BANK", bank_code="HBL", account_number="12345678900001",
    )  # type: ignore[arg-type]  # fmt: skip
    key = IdempotencyKey(reference, reference.encode().ljust(32))
    return CreatePayout(request_of(merchant_id, key), new_payout(body, load_directory()))


async def test_the_sweep_finds_work_whose_wake_was_lost(pool: None, stack: Stack, world: World, receiver: Receiver) -> None:
    await asyncio.to_thread(world.post, "/api/v1/webhook-endpoints", {"url": receiver.url})
    work = units_of_work()  # sends no wakes
    response = await work.submit(create(world.merchant_id, "no-wake"))
    payout_id = str(response.location).rpartition("/")[2]
    await asyncio.to_thread(world.wait_for, payout_id, "SUCCESS")
    await asyncio.to_thread(receiver.wait_for, "payout.created", "payout.succeeded")


async def test_taking_steps_reports_more_work_only_after_a_full_batch(pool: None, stack: Stack) -> None:
    def new_world() -> Any:
        world = World.create(stack, opening_balance="100.00")
        world.client.post("/sandbox/v1/clock/freeze", json={})  # so that no worker runs the steps
        return world

    world, work = await asyncio.to_thread(new_world), units_of_work()
    try:
        await asyncio.gather(*(work.submit(create(world.merchant_id, f"R{number}")) for number in range(20)))
        await asyncio.to_thread(
            stack.execute, "UPDATE payouts SET due_at = created_at, step = 1 WHERE merchant_id = $1", world.merchant_id
        )
        assert Decimal(world.balance()[0]) == Decimal("80.00")
        assert [await take_due_steps(work, world.merchant_id, 16) for _ in range(3)] == [True, False, False]
    finally:
        await asyncio.to_thread(world.client.close)


@pytest.mark.parametrize(
    ("has_more", "woken_at", "expected"),
    [([False], 0, 1), ([True, False], 0, 2), ([False, False], 1, 2), ([True, True, False], 0, 3)],
)
async def test_a_merchants_next_batch_runs_only_if_there_is_more_work_or_a_new_wake(
    has_more: list[bool], woken_at: int, expected: int
) -> None:
    batches = 0
    ended = asyncio.Event()

    async def run_batch(merchant_id: str) -> bool:
        nonlocal batches
        batches += 1
        if batches == woken_at:
            tasks.wake(merchant_id)
        if batches == expected:
            ended.set()
        return has_more[batches - 1]

    tasks = MerchantTasks("test", 1, run_batch)
    tasks.wake("m")
    tasks.wake("m")  # before the batch starts, so that one batch covers both wakes
    await asyncio.wait_for(ended.wait(), 60)
    await tasks.stop(60)
    assert batches == expected
