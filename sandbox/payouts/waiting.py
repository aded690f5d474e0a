"""Wait until a payout reaches a status, driven by the live feed instead of polling.

The feed says when to read; PostgreSQL is the truth.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

from sandbox.domain.payout import Payout
from sandbox.domain.payout_states import CANCELLED, FAILED, REINITIATED, REJECTED, RETURNED, STATUSES, SUCCESS
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.live_feed import Message
from sandbox.infrastructure.live_subscriber import LiveSubscriber
from sandbox.payouts.reads import PayoutReads

_FIRST_PAUSE: Final = 0.25
"""Seconds between reads while the feed is down. Doubles up to _MAX_PAUSE_SECONDS."""
_MAX_PAUSE_SECONDS: Final = 2.0

_ENDED: Final = frozenset({FAILED, CANCELLED, REJECTED, RETURNED})
"""A payout stays in these statuses, unless it FAILED and is reinitiated. So a wait ends when it reaches one of them."""
_TRANSIENT: Final = frozenset(STATUSES) - _ENDED - {SUCCESS}
"""Statuses that a payout may have entered and left again within its current attempt."""

_SQL: Final = read_statements(__name__)


class PayoutWaits:
    """All pending waits in this process."""

    def __init__(self, subscriber: LiveSubscriber, reads: PayoutReads) -> None:
        self._subscriber = subscriber
        self._reads = reads
        self._merchants: dict[str, _MerchantWaits] = {}

    async def wait(self, merchant_id: str, payout_id: str, statuses: Sequence[str], seconds: float) -> Payout | None:
        """Return the payout once it is in one of `statuses`, or after `seconds` of real time; None if it does not exist.

        Returns immediately if the payout has been in one of them since it was last reinitiated, or if it has ended in
        another status. Raises CONNECTION_ERRORS, and asyncpg's errors.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        waits = self._merchants.get(merchant_id)
        if waits is None:
            waits = self._merchants[merchant_id] = _MerchantWaits()
        wait = _Wait(frozenset(statuses))
        waits.add(payout_id, wait)
        pause = _FIRST_PAUSE
        try:
            # Subscribe before reading: a change between the two is still received.
            async with self._subscriber.subscribe(merchant_id, waits.receive):
                while True:
                    wait.wake.clear()
                    is_over = wait.reached
                    payout = await self._reads.get(merchant_id, payout_id)
                    if payout is None or is_over or payout.status in wait.statuses or payout.status in _ENDED:
                        return payout
                    if await _was_in_status(merchant_id, payout_id, wait.statuses):
                        wait.reached = True
                        continue  # read the payout again: it may have changed since the read above
                    left = 0.0 if self._subscriber.closing else deadline - clock()
                    if left <= 0:
                        return payout
                    if not self._subscriber.is_live(merchant_id):
                        left = min(left, pause)
                        pause = min(pause * 2, _MAX_PAUSE_SECONDS)
                    try:
                        async with asyncio.timeout(left):
                            await wait.wake.wait()
                    except TimeoutError:
                        pass  # read once more, in case a message was lost
        finally:
            waits.remove(payout_id, wait)
            if not waits.by_payout and self._merchants.get(merchant_id) is waits:
                del self._merchants[merchant_id]


async def _was_in_status(merchant_id: str, payout_id: str, statuses: Collection[str]) -> bool:
    """Whether the payout has been in one of `statuses` since its current attempt began."""
    transient = [status for status in statuses if status in _TRANSIENT]
    if not transient:
        return False  # the usual case: the wait is for SUCCESS or one of _ENDED, and the payout is still in progress
    async with connection(merchant_id) as conn:
        return bool(await conn.fetchval(_SQL["was_in_status"], merchant_id, payout_id, transient, REINITIATED))


class _Wait:
    __slots__ = ("reached", "statuses", "wake")

    def __init__(self, statuses: frozenset[str]) -> None:
        self.statuses = statuses
        self.wake = asyncio.Event()
        self.reached = False
        """Whether the payout was in one of `statuses`, however briefly, or has ended."""


class _MerchantWaits:
    """A merchant's waits by payout, so that handling a message does not slow down with their number."""

    def __init__(self) -> None:
        self.by_payout: dict[str, set[_Wait]] = {}

    def add(self, payout_id: str, wait: _Wait) -> None:
        self.by_payout.setdefault(payout_id, set()).add(wait)

    def remove(self, payout_id: str, wait: _Wait) -> None:
        waits = self.by_payout[payout_id]
        waits.remove(wait)
        if not waits:
            del self.by_payout[payout_id]

    def receive(self, message: Message | None) -> None:
        if message is None:  # messages may have been lost, so every wait reads again
            for waits in self.by_payout.values():
                for wait in waits:
                    wait.wake.set()
            return
        for transition in message.transitions:
            for wait in self.by_payout.get(transition.payout_id, ()):
                if transition.to in wait.statuses or transition.to in _ENDED:
                    wait.reached = True
                    wait.wake.set()
