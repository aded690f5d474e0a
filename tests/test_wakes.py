"""A wake-up starts work soon. One message has many wake-ups, and a lost one only delays the work until the next sweep."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from redis.exceptions import ResponseError

from sandbox.domain.payout_commands import CreatePayout
from sandbox.domain.unit import IdempotencyKey
from sandbox.infrastructure.redis_messages import RedisConnection, RedisSender
from sandbox.infrastructure.wake import DELIVERIES, STEPS, Waker, take_wake_ups
from sandbox.payouts.directory.loader import load_directory
from sandbox.payouts.requests import CreatePayoutBody, new_payout
from sandbox.payouts.steps import take_due_steps
from tests.harness.receiver import Receiver
from tests.harness.work import request_of, units_of_work
from tests.harness.world import Stack, World
from worker.merchant_tasks import MerchantTasks


@asynccontextmanager
async def redis_of(stack: Stack) -> AsyncIterator[tuple[RedisSender, RedisConnection]]:
    """Yield a sender that was not started, and a connection to its Redis database, which no worker of the sandbox reads."""
    url = f"{stack.redis_url}?db=7"
    redis, sender = RedisConnection(url), RedisSender(url)
    try:
        yield sender, redis
    finally:
        await sender.close()
        await redis.execute([("FLUSHDB",)], 60)
        await redis.close()


async def length_of_list(redis: RedisConnection) -> int:
    (length,) = await redis.execute([("LLEN", "psp:wake-ups")], 60)
    return int(length)


async def test_wake_ups_that_come_together_are_one_message(stack: Stack) -> None:
    expected = {(kind, f"merchant-{number}", number) for number in range(50) for kind in (STEPS, DELIVERIES)}
    async with redis_of(stack) as (sender, redis):
        waker = Waker(sender)
        for _ in range(3):
            for wake_up in sorted(expected):
                waker.wake(*wake_up)
        sender.start()
        taken = await take_wake_ups(redis)
        assert (set(taken), len(taken), await length_of_list(redis)) == (expected, 100, 0)


async def test_a_wake_up_after_a_message_was_taken_is_another_message(stack: Stack) -> None:
    async with redis_of(stack) as (sender, redis):
        waker = Waker(sender)
        sender.start()
        for number in range(3):
            waker.wake(STEPS, f"merchant-{number}", number)
            assert await take_wake_ups(redis) == [(STEPS, f"merchant-{number}", number)]


async def test_wake_ups_arrive_again_after_the_connection_was_lost(stack: Stack) -> None:
    async with asyncio.timeout(60), redis_of(stack) as (sender, redis):
        waker = Waker(sender)
        sender.start()
        waker.wake(STEPS, "before", 0)
        assert await take_wake_ups(redis) == [(STEPS, "before", 0)]
        own, clients = await redis.execute([("CLIENT", "ID"), ("CLIENT", "LIST")], 60)
        (sending,) = {int(id_) for id_ in re.findall(r"^id=(\d+) .* db=7 ", clients.decode(), re.MULTILINE)} - {own}
        await redis.execute([("CLIENT", "KILL", "ID", sending)], 60)
        while not await length_of_list(redis):  # those sent before the loss was noticed are lost
            waker.wake(STEPS, "after", 0)
            await asyncio.sleep(0.01)


async def test_wake_ups_that_no_worker_takes_are_limited_and_the_newest_stay(stack: Stack) -> None:
    async with redis_of(stack) as (sender, redis):
        waker = Waker(sender)
        for number in range(2_000):
            waker.wake(STEPS, f"merchant-{number}", number)
            await redis.execute(sender.take_commands(), 60)
        assert await length_of_list(redis) <= 1_500
        (newest,) = await redis.execute([("LINDEX", "psp:wake-ups", -1)], 60)
        assert newest == b"steps:merchant-1999:1999"


async def test_wake_ups_that_cannot_be_sent_are_limited(stack: Stack) -> None:
    async with redis_of(stack) as (sender, redis):
        waker = Waker(sender)
        for number in range(20_000):
            waker.wake(STEPS, f"merchant-{number}", number)
        await redis.execute(sender.take_commands(), 60)
        assert await length_of_list(redis) == 100  # each of a hundred wake-ups


async def test_a_command_that_redis_refuses_does_not_affect_the_others_of_its_message(stack: Stack) -> None:
    async with redis_of(stack) as (_, redis):
        with pytest.raises(ResponseError):
            await redis.execute([("SET", "one", 1), ("RPUSH", "one", 2), ("SET", "two", 2)], 60)
        assert await redis.execute([("MGET", "one", "two"), ("PING",)], 60) == [[b"1", b"2"], b"PONG"]


async def test_a_late_reply_is_not_taken_for_the_reply_of_the_next_command(stack: Stack) -> None:
    async with redis_of(stack) as (_, redis):
        with pytest.raises(TimeoutError):
            await redis.execute([("ECHO", "late"), ("BLPOP", "nothing", 0)], 0.01)
        assert await redis.execute([("ECHO", "next")], 60) == [b"next"]


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
        more = [await take_due_steps(work, [world.merchant_id], lock_timeout=60, limit=16) for _ in range(3)]
        assert more == [{world.merchant_id: has_more} for has_more in (True, False, False)]
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
