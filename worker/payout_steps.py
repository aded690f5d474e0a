"""Run the due payout steps of woken merchants, and start delivering the webhooks that they cause."""

import asyncio
from collections.abc import Callable, Container, Hashable, Iterable
from itertools import islice
from typing import Final

import structlog
from asyncpg import LockNotAvailableError

from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.db.distributed.placement import shard_of
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, RETRYABLE
from sandbox.infrastructure.tasks import begin_task
from sandbox.payouts.steps import take_due_steps
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.unit_of_work.transaction import LOCK_TURN
from sandbox.webhooks.delivery.deliverer import Deliverer
from worker.merchant_tasks import MerchantTasks

MAX_SOLO_MERCHANTS: Final = 4
"""Maximum number of single-merchant transactions running at the same time. Each needs a connection."""
_MAX_TIMERS: Final = 10_000
_LONE_LOCK_SECONDS: Final = 0.05
"""How long a round for a single merchant waits for its lock, which is usually held for the merchant's next request."""
_QUIET_ROUND_SECONDS: Final = 0.01
"""Minimum time from the start of a round that sends no webhook to the next round. Nobody is told of its steps, so those of a
request that follows soon can share a transaction with them. After a pause, a round begins without delay."""
_SENDING_ROUND_SECONDS: Final = 0.005
"""The same for a round that sends webhooks. It is shorter because a receiver waits for the next ones."""
_LATEST: Final = 2**32
"""The position of wake-ups that do not say which unit they follow. It is higher than any unit's."""
_log = structlog.get_logger()


class MerchantTimers:
    """Wake merchants at given times. Each merchant has one timer, set to its earliest time."""

    def __init__(self, wake: Callable[[str], None]) -> None:
        self._wake = wake
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def later(self, merchant_id: str, seconds: float) -> None:
        """Wake the merchant after `seconds`, unless an earlier timer is set.

        With too many timers set, do nothing: the sweep finds the work.
        """
        loop = asyncio.get_running_loop()
        # Due times are rounded down to milliseconds. Without the extra millisecond, the wake-up can come too early.
        at = loop.time() + max(seconds, 0.0) + 0.001
        timer = self._timers.get(merchant_id)
        if timer is not None:
            if timer.when() <= at:
                return
            timer.cancel()
        elif len(self._timers) >= _MAX_TIMERS:
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


class PayoutStepRunner:
    """Runs the due steps of woken merchants, now or at a given time.

    Merchants that are woken during a transaction, or shortly after, share the next one. A merchant that is locked elsewhere,
    or whose round fails, gets a separate transaction, which waits for its lock. A wake-up for work that the running transaction
    has found under the merchant's lock causes no further one.
    """

    def __init__(self, work: UnitOfWorkRunner, deliverer: Deliverer, merchants_at_once: int = 64) -> None:
        """`deliverer` sends the webhooks of the steps."""
        self._work = work
        self._deliverer = deliverer
        self._merchants_at_once = merchants_at_once
        self._alone = MerchantTasks("steps", MAX_SOLO_MERCHANTS, self._run_alone)
        self._timers = MerchantTimers(self.wake)
        self._woken: dict[Hashable, dict[str, int]] = {}
        """By shard, the merchants that wait for a round, in the order of their turns, with the position of the latest wake-up.
        An entry is there while its task runs."""
        self._deliveries_woken: set[str] = set()
        """Merchants with due deliveries, for which the next round must wake the deliverer if it cannot claim them all."""
        self._rounds: set[asyncio.Task[None]] = set()

    def wake(self, merchant_id: str, position: int = _LATEST) -> None:
        """Look for due steps of the merchant. `position`: see `Waker.wake`."""
        if self._alone.stopping:
            return
        shard = shard_of(merchant_id)
        if shard in self._woken:
            self._woken[shard][merchant_id] = max(position, self._woken[shard].get(merchant_id, 0))
            return
        self._woken[shard] = {merchant_id: position}
        begin_task(self._rounds, self._run_rounds(shard))

    def wake_deliveries(self, merchant_id: str) -> None:
        """Deliver the merchant's due webhooks. If it waits for a round, the round's transaction claims them."""
        if merchant_id in self._woken.get(shard_of(merchant_id), ()):
            self._deliveries_woken.add(merchant_id)
        else:
            self._deliverer.wake(merchant_id)

    async def committed(self, unit: UnitOfWork) -> None:
        """Follow up on a committed unit: have its unleased webhooks claimed, and set a timer for its next due step.

        If it has run the merchant's due steps, forget the wake-ups for them.
        """
        if self._deliverer.may_send_now(unit.merchant_id, unit.deliveries):
            self._deliverer.wake(unit.merchant_id)
        if unit.next_due is not None:
            self._timers.later(unit.merchant_id, (unit.next_due - unit.now).total_seconds())
        woken = self._woken.get(shard_of(unit.merchant_id), {})
        if unit.due and not unit.more_due and woken.get(unit.merchant_id, _LATEST) < unit.ids.first:
            del woken[unit.merchant_id]

    async def stop(self, seconds: float) -> None:
        """Cancel the timers, start no more batches, and wait up to `seconds` for the running ones to commit."""
        self._timers.cancel()
        for merchants in self._woken.values():
            merchants.clear()
        self._alone.stopping = True
        if self._rounds:
            await asyncio.wait(self._rounds, timeout=seconds)
        await self._alone.stop(seconds)

    async def _run_alone(self, merchant_id: str) -> bool:
        try:
            with self._deliverer.leasing() as deliveries:
                more = await take_due_steps(self._work, [merchant_id], deliveries, LOCK_TURN)
            self._wake_deliverer([merchant_id], deliveries.complete)
            return more.get(merchant_id, False)
        except LockNotAvailableError:  # outside the `with`, which releases what the failed transaction reserved
            return True

    async def _run_rounds(self, shard: Hashable) -> None:
        woken = self._woken[shard]
        clock = asyncio.get_running_loop().time
        try:
            while woken:
                merchants = list(islice(woken, self._merchants_at_once))
                for merchant_id in merchants:
                    del woken[merchant_id]
                began = clock()
                sends = await self._run_round(merchants)
                await asyncio.sleep(began + (_SENDING_ROUND_SECONDS if sends else _QUIET_ROUND_SECONDS) - clock())
        finally:
            # No await since `woken` was last checked, so no wake-up is lost in between.
            del self._woken[shard]

    async def _run_round(self, merchants: list[str]) -> bool:
        """Run the merchants' due steps in one transaction. Return whether it sends webhooks."""
        sends = False
        more: dict[str, bool] = {}
        complete: set[str] = set()
        try:
            with self._deliverer.leasing() as deliveries:
                lock_timeout = _LONE_LOCK_SECONDS if len(merchants) == 1 else None
                more = await take_due_steps(self._work, merchants, deliveries, lock_timeout)
            complete = deliveries.complete
            sends = any(deliveries.sequences.values())
        except LockNotAvailableError:
            pass  # they get transactions of their own
        except (*CONNECTION_ERRORS, *RETRYABLE) as error:
            _log.warning("steps_interrupted", merchants=len(merchants), error=repr(error)[:300])
        except Exception:
            _log.exception("round_failed", merchants=len(merchants))
        self._wake_deliverer(merchants, complete)
        for merchant_id in merchants:
            if merchant_id not in more:
                self._alone.wake(merchant_id)
            elif more[merchant_id] and not self._alone.stopping:
                self.wake(merchant_id)
        return sends

    def _wake_deliverer(self, merchants: Iterable[str], complete: Container[str]) -> None:
        """After a transaction, have the due deliveries of its merchants claimed, except where it has claimed them all.

        Merchants that were woken again since it claimed wait for their next transaction.
        """
        for merchant_id in self._deliveries_woken.intersection(merchants):
            if merchant_id not in self._woken.get(shard_of(merchant_id), ()):
                self._deliveries_woken.remove(merchant_id)
                if merchant_id not in complete:
                    self._deliverer.wake(merchant_id)
