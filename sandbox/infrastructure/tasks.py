"""End background tasks reliably."""

import asyncio
from typing import Any, Final

_CANCEL_INTERVAL: Final = 0.1
"""Seconds after which a task that is still running is cancelled again."""


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
        if not task.cancelled():
            task.exception()  # retrieve it, or asyncio logs that it was never retrieved
