"""Advance merchants: take their due payout steps, batch by batch, and hand on what is to be delivered."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from sandbox.db.engine import CONNECTION_ERRORS, RETRYABLE
from sandbox.domain.errors import Problem
from sandbox.domain.unit import UnitOfWork
from sandbox.payouts.steps import take_due_steps
from sandbox.unit_of_work.runner import UnitsOfWork

AT_ONCE: Final = 4
"""Merchants worked for side by side; each needs a connection."""
_TIMERS: Final = 10_000
_log = structlog.get_logger()


class Advancer:
    """Works for the merchants that it is woken for, each by at most one task of this process."""

    def __init__(self, work: UnitsOfWork) -> None:
        self.deliver: Callable[[str], None] = lambda merchant_id: None
        """Who is told that a merchant may have deliveries due."""
        self._work = work
        self._again: dict[str, bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._stopping = False

    def wake(self, merchant_id: str) -> None:
        """The merchant may have steps or deliveries due."""
        if self._stopping:
            return
        self.deliver(merchant_id)
        if merchant_id in self._again:
            self._again[merchant_id] = True
            return
        self._again[merchant_id] = False
        task = asyncio.create_task(self._advance(merchant_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def later(self, merchant_id: str, seconds: float) -> None:
        """Wake the merchant in so many seconds, if nothing sooner is set. The sweep finds what this forgets."""
        loop = asyncio.get_running_loop()
        at = loop.time() + max(seconds, 0.0) + 0.001  # times are cut to milliseconds, so the moment itself is too early
        timer = self._timers.get(merchant_id)
        if timer is not None:
            if timer.when() <= at:
                return
            timer.cancel()
        elif len(self._timers) >= _TIMERS:
            return
        self._timers[merchant_id] = loop.call_at(at, self._ring, merchant_id)

    def _ring(self, merchant_id: str) -> None:
        self._timers.pop(merchant_id, None)
        self.wake(merchant_id)

    async def committed(self, unit: UnitOfWork) -> None:
        """Hand on what a committed unit left to do: deliveries now, steps when they fall due."""
        if unit.deliveries:
            self.deliver(unit.merchant_id)
        if unit.next_due is not None:
            self.later(unit.merchant_id, (unit.next_due - unit.now).total_seconds())

    async def stop(self, seconds: float) -> None:
        """Begin no batch more, and let the ones under way commit."""
        self._stopping = True
        for timer in self._timers.values():
            timer.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    async def _advance(self, merchant_id: str) -> None:
        try:
            while not self._stopping:
                self._again[merchant_id] = False
                async with self._turn:
                    taken = await take_due_steps(self._work, merchant_id)
                if not taken and not self._again[merchant_id]:
                    return
        except (*CONNECTION_ERRORS, *RETRYABLE) as error:
            _log.warning("advance_lost", merchant_id=merchant_id, error=repr(error)[:300])
        except Problem:
            _log.info("merchant_gone", merchant_id=merchant_id)
        except Exception:
            _log.exception("advance_failed", merchant_id=merchant_id)
        finally:
            del self._again[merchant_id]
