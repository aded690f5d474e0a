"""End background tasks for certain."""

import asyncio
from typing import Any, Final

_ASK_AGAIN: Final = 0.1
"""Seconds after which a task that is still running is cancelled once more."""


async def end_tasks(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and wait until all of them have ended, whatever they return or raise.

    One `cancel` is not enough: before Python 3.12, `asyncio.wait_for` swallows a cancellation that arrives just as the
    awaited call completes, and redis-py wraps each command in it. A loop of such calls would then run for ever, and
    whoever waits for its end would wait with it.
    """
    pending = {*tasks}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_ASK_AGAIN)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen, so that asyncio does not report it as lost
