"""Background tasks end even if they swallow a cancellation, and their errors are not logged when their callers have gone."""

import asyncio
import gc
from typing import Any

import pytest

from sandbox.infrastructure.db.pools import Pools
from sandbox.infrastructure.tasks import end_tasks


async def test_a_task_that_swallows_a_cancellation_is_still_ended() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                # asyncio.wait_for does this before Python 3.12 if its awaitable completes at the same moment.
                swallowed += 1
                if swallowed == 3:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await end_tasks(task)
    assert task.cancelled()
    assert swallowed == 3


async def test_an_error_raised_by_an_ending_task_is_ignored() -> None:
    async def fails_last() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("raised while ending")

    failing, done = asyncio.create_task(fails_last()), asyncio.create_task(asyncio.sleep(0))
    await asyncio.sleep(0)
    await end_tasks(failing, done)
    assert isinstance(failing.exception(), RuntimeError)
    await end_tasks()


async def test_an_error_of_shared_work_whose_callers_have_gone_is_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    refuse, refused = asyncio.Event(), asyncio.Event()

    async def refuses() -> None:
        await refuse.wait()
        refused.set()
        raise ConnectionResetError("the database is restarting")

    async def discover_and_leave() -> None:
        pools = Pools("postgresql://127.0.0.1:1/none", 1, "none", {})
        monkeypatch.setattr(pools, "_discover", refuses)
        caller = asyncio.create_task(pools.discover())
        await asyncio.sleep(0)
        await end_tasks(caller)
        refuse.set()
        await refused.wait()

    await discover_and_leave()
    monkeypatch.undo()
    gc.collect()
    assert logged == []
