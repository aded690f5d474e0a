"""Keep large requests from delaying small ones: one thread does their computing, and merchants take turns at it.

The event loop serves all merchants, so it must not spend 100 ms on one merchant's batch of 1000 payouts. Python switches
between the thread and the event loop every SWITCH_SECONDS, and the event loop rarely needs longer than that.
"""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from sandbox.domain.errors import Problem

T = TypeVar("T")

LARGE_BODY: Final = 32 * 1024
"""In bytes. Decoding and validating a smaller body takes a few milliseconds at most."""
LARGE_BATCH: Final = 50
"""Payouts. Deciding on fewer of them takes a few milliseconds at most."""
SWITCH_SECONDS: Final = 0.0002
"""Python's default of 5 ms would delay each callback of the event loop by that time."""
MAX_WAITING: Final = 64
"""Maximum number of a merchant's requests that wait for their turn; others get RATE_LIMITED."""


class Turns:
    """A number of places that merchants take in turn. A merchant's own requests take its turns in order of arrival."""

    def __init__(self, places: int, max_waiting: int = MAX_WAITING) -> None:
        """At most `max_waiting` requests of one merchant wait for a place."""
        self._free = places
        self._max_waiting = max_waiting
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """The merchants that wait, in the order of their turns."""

    @asynccontextmanager
    async def place(self, merchant_id: str) -> AsyncIterator[None]:
        """Wait for a place, and hold it for the block. Raises RATE_LIMITED if too many of the merchant's requests wait."""
        await self._take(merchant_id)
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self, merchant_id: str) -> None:
        if self._free:
            self._free -= 1
            return
        queue = self._waiting.setdefault(merchant_id, deque())
        if len(queue) >= self._max_waiting:
            raise too_many_waiting()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()  # the turn came, and nobody will use it
            raise

    def _pass_on(self) -> None:
        """Give a place to the merchant whose turn it is."""
        while self._waiting:
            merchant_id = next(iter(self._waiting))
            queue = self._waiting.pop(merchant_id)
            while queue and queue[0].done():  # cancelled meanwhile
                queue.popleft()
            if not queue:
                continue
            turn = queue.popleft()
            if queue:
                self._waiting[merchant_id] = queue  # behind the others
            turn.set_result(None)
            return
        self._free += 1


def too_many_waiting() -> Problem:
    """Return the refusal of a request whose merchant has too many requests waiting already."""
    return Problem(
        "RATE_LIMITED",
        "Too many requests of this merchant are waiting. Nothing was done: send fewer at once, and retry this one.",
        headers={"Retry-After": "1"},
    )


_turns: Final = Turns(1)
_thread: Final = ThreadPoolExecutor(1, "large-work")


async def compute(merchant_id: str, work: Callable[[], T], *, is_large: bool) -> T:
    """Return the result of `work`, which computes and must not touch the event loop, or raise its error.

    Large work runs in the thread, when it is the merchant's turn; other work runs at once. Raises RATE_LIMITED if too much of
    the merchant's work waits. Cancelling the caller does not stop work that has begun.
    """
    if not is_large:
        return work()
    async with _turns.place(merchant_id):
        sys.setswitchinterval(SWITCH_SECONDS)
        return await asyncio.get_running_loop().run_in_executor(_thread, work)
