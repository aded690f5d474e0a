"""Keep large requests from delaying small ones: one thread does their computing, and merchants take turns at it.

The event loop serves all merchants, so it must not spend 100 ms on one merchant's batch of 1000 payouts. Python switches
between the thread and the event loop every SWITCH_SECONDS, and the event loop rarely needs longer than that.
"""

import asyncio
import sys
import time
from asyncio import sleep
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
REST: Final = 3.0
"""The thread rests for this many times as long as its work took, while several merchants wait for it.

Decoding a body is one call that never lets the event loop run. One after the other, they would hold up all small requests."""
MAX_REST_SECONDS: Final = 0.05
MAX_WAITING: Final = 64
"""Maximum number of a merchant's requests that wait for their turn; others get RATE_LIMITED."""


class Turns:
    """A number of places that merchants take in turn, one each. A merchant's own requests take it in order of arrival."""

    def __init__(self, places: int, max_waiting: int = MAX_WAITING) -> None:
        """At most `max_waiting` requests of one merchant wait for a place."""
        self._places = places
        self._max_waiting = max_waiting
        self._holders: set[str] = set()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """The merchants that wait, in the order of their turns."""

    @asynccontextmanager
    async def place(self, merchant_id: str) -> AsyncIterator[None]:
        """Wait for a place, and hold it for the block. Raises RATE_LIMITED if too many of the merchant's requests wait."""
        await self._take(merchant_id)
        try:
            yield
        finally:
            self._give_back(merchant_id)

    async def _take(self, merchant_id: str) -> None:
        if self.has_place(merchant_id):
            self._holders.add(merchant_id)
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
                self._give_back(merchant_id)  # its turn came, but it no longer needs it
            raise

    def has_place(self, merchant_id: str) -> bool:
        """Return whether the merchant would not have to wait."""
        return len(self._holders) < self._places and merchant_id not in self._holders

    def is_awaited(self) -> bool:
        """Return whether any merchant waits for a place."""
        return bool(self._waiting)

    def _give_back(self, merchant_id: str) -> None:
        """Free the merchant's place, and give it to the next merchant that has none."""
        self._holders.discard(merchant_id)
        for waiting_id in list(self._waiting):
            if waiting_id in self._holders:
                continue
            queue = self._waiting.pop(waiting_id)
            while queue:
                turn = queue.popleft()
                if not turn.done():  # otherwise it was cancelled
                    break
            else:
                continue
            if queue:
                self._waiting[waiting_id] = queue  # at the end of the queue
            self._holders.add(waiting_id)
            turn.set_result(None)
            return


def too_many_waiting() -> Problem:
    """Return the refusal of a request whose merchant has too many requests waiting already."""
    return Problem(
        "RATE_LIMITED",
        "Too many requests of this merchant are waiting. Nothing was done: send fewer at the same time, and retry this one.",
        headers={"Retry-After": "1"},
    )


READS: Final = Turns(2)
"""The places of requests that read for long. Each keeps a connection and a core of the database busy."""
WRITES: Final = Turns(1)
"""The place of requests that write for long. They write more than they read, so two of them would delay all others."""
_turns: Final = Turns(1)
_thread: Final = ThreadPoolExecutor(1, "large-work")


async def compute(merchant_id: str, work: Callable[[], T], *, is_large: bool) -> T:
    """Return the result of `work`, which computes and must not touch the event loop, or raise its error.

    Large work runs in the thread, when it is the merchant's turn; other work runs immediately. Raises RATE_LIMITED if too much
    of the merchant's work waits. Cancelling the caller does not stop work that has begun.
    """
    if not is_large:
        return work()
    async with _turns.place(merchant_id):
        sys.setswitchinterval(SWITCH_SECONDS)
        started = time.perf_counter()
        try:
            return await asyncio.get_running_loop().run_in_executor(_thread, work)
        finally:
            if _turns.is_awaited():
                await sleep(min(REST * (time.perf_counter() - started), MAX_REST_SECONDS))
