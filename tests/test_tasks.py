"""Background tasks are ended for certain, whatever swallows a cancellation."""

import asyncio

from sandbox.infrastructure.tasks import end_tasks


async def test_a_task_that_swallows_a_cancellation_is_ended_all_the_same() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                # As asyncio.wait_for does before Python 3.12, if what it waits for completes at this moment.
                swallowed += 1
                if swallowed == 3:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await end_tasks(task)
    assert task.cancelled()
    assert swallowed == 3


async def test_what_a_task_raises_as_it_ends_is_of_no_account() -> None:
    async def fails_last() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("on its way out")

    failing, done = asyncio.create_task(fails_last()), asyncio.create_task(asyncio.sleep(0))
    await asyncio.sleep(0)
    await end_tasks(failing, done)
    assert isinstance(failing.exception(), RuntimeError)
    await end_tasks()
