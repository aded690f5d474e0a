"""End background tasks reliably, and limit the time of work."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")
_CANCEL_INTERVAL: Final = 0.1
"""Seconds after which a task that is still running is cancelled again."""


def begin_task(tasks: "set[asyncio.Task[T]]", work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
    """Start work as a task that is in `tasks` until it ends: asyncio itself keeps no reference that protects it."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


async def end_tasks(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and wait until all of them have ended, whatever they return or raise.

    One `cancel` is not enough. Before Python 3.12, `asyncio.wait_for` swallows a cancellation that arrives just as the awaited
    call completes, and redis-py wraps each command in it. A loop of such calls would then run forever, and so would a wait for
    its end.
    """
    pending = {*tasks}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_INTERVAL)
    for task in tasks:
        retrieve_error(task)


def retrieve_error(ended: "asyncio.Future[Any]") -> None:
    """Keep asyncio from logging the error of a future or task that has ended and whose callers have all gone."""
    if not ended.cancelled():
        ended.exception()


async def within(seconds: float | None, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of the work. Raises its error, and TimeoutError if it takes longer; None is no limit.

    `asyncio.wait_for` would also wait until the cancelled work has ended, such as until a connection was given back.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError(f"not done within {seconds} seconds")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(retrieve_error)
