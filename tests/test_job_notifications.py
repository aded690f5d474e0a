"""The worker runs every job in its queue, with or without a notification."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from arq.worker import func

from sandbox.infrastructure.wake import JOB_NOTIFICATIONS, connect, pack, redis_settings
from tests.harness.world import Stack
from worker.job_notifications import JobNotificationWorker


@asynccontextmanager
async def running_worker(stack: Stack, queue: str, seen: "asyncio.Queue[int]", max_jobs: int = 100) -> AsyncIterator[Any]:
    """Run a worker whose jobs put their numbers into `seen`. Yield the Redis connection to enqueue jobs with."""

    async def note(_: dict[str, Any], number: int) -> None:
        await asyncio.sleep(0)
        seen.put_nowait(number)

    pool = await connect(redis_settings(stack.redis_url))
    worker = JobNotificationWorker(
        [func(note, name="note")],
        queue_name=queue,
        redis_pool=pool,
        keep_result=0,
        max_jobs=max_jobs,
        handle_signals=False,
        job_serializer=pack,
        job_deserializer=msgspec.msgpack.decode,
    )
    task = asyncio.create_task(worker.async_run())
    try:
        yield pool
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await worker.close()


async def next_numbers(seen: "asyncio.Queue[int]", count: int) -> set[int]:
    """Wait for `count` numbers and return them."""
    return {await asyncio.wait_for(seen.get(), 60) for _ in range(count)}


async def test_a_job_runs_with_and_without_a_notification(stack: Stack) -> None:
    seen: asyncio.Queue[int] = asyncio.Queue()
    queue = f"test:{uuid.uuid4()}"
    async with running_worker(stack, queue, seen) as redis:
        await redis.enqueue_job("note", 1, _queue_name=queue)
        await redis.publish(JOB_NOTIFICATIONS, b"")
        assert await next_numbers(seen, 1) == {1}
        await redis.enqueue_job("note", 2, _queue_name=queue)
        assert await next_numbers(seen, 1) == {2}


async def test_jobs_beyond_the_limit_run_once_others_have_ended(stack: Stack) -> None:
    seen: asyncio.Queue[int] = asyncio.Queue()
    queue = f"test:{uuid.uuid4()}"
    async with running_worker(stack, queue, seen, max_jobs=2) as redis:
        for number in range(20):
            await redis.enqueue_job("note", number, _queue_name=queue)
        await redis.publish(JOB_NOTIFICATIONS, b"")
        assert await next_numbers(seen, 20) == set(range(20))
