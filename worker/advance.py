"""Take due payout steps of the merchants that are woken, and wake delivery of the webhooks they cause."""

import asyncio
from collections.abc import Callable
from typing import Final

from sandbox.domain.unit import UnitOfWork
from sandbox.payouts.steps import take_due_steps
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from worker.merchant_tasks import MerchantTasks

AT_ONCE: Final = 4
"""Merchants advanced at the same time; each needs a connection."""
_TIMERS: Final = 10_000


class MerchantTimers:
    """Wake merchants at set times: each has one timer, for the earliest."""

    def __init__(self, wake: Callable[[str], None]) -> None:
        self._wake = wake
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def later(self, merchant_id: str, seconds: float) -> None:
        """Wake the merchant after `seconds`, unless an earlier timer is set.

        With too many timers set, do nothing: the sweep finds the work.
        """
        loop = asyncio.get_running_loop()
        # Due times are rounded down to milliseconds. Without the extra millisecond the wake can come too early.
        at = loop.time() + max(seconds, 0.0) + 0.001
        timer = self._timers.get(merchant_id)
        if timer is not None:
            if timer.when() <= at:
                return
            timer.cancel()
        elif len(self._timers) >= _TIMERS:
            return
        self._timers[merchant_id] = loop.call_at(at, self._on_timer, merchant_id)

    def cancel(self) -> None:
        """Cancel all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _on_timer(self, merchant_id: str) -> None:
        self._timers.pop(merchant_id, None)
        self._wake(merchant_id)


class Advancer:
    """Takes the due steps of the merchants that are woken, now or at a set time."""

    def __init__(self, work: UnitOfWorkRunner, deliver: Callable[[str], None]) -> None:
        """`deliver` is called with the id of a merchant that has new deliveries due."""
        self._deliver = deliver
        self._tasks = MerchantTasks("advance", AT_ONCE, lambda merchant_id: take_due_steps(work, merchant_id))
        self._timers = MerchantTimers(self._tasks.wake)

    def wake(self, merchant_id: str) -> None:
        """Look for due steps of the merchant."""
        self._tasks.wake(merchant_id)

    async def committed(self, unit: UnitOfWork) -> None:
        """Follow up on a committed unit: deliver its webhooks now, and set a timer for its next due step."""
        if any(delivery.enabled for delivery in unit.deliveries):
            self._deliver(unit.merchant_id)
        if unit.next_due is not None:
            self._timers.later(unit.merchant_id, (unit.next_due - unit.now).total_seconds())

    async def stop(self, seconds: float) -> None:
        """Cancel the timers, start no more batches, and wait up to `seconds` for the running ones to commit."""
        self._timers.cancel()
        await self._tasks.stop(seconds)
