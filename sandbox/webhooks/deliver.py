"""Deliver webhooks: claim what is due, call the endpoints side by side, record the results in batches.

The HTTP calls happen between transactions, never inside one. A worker that dies leaves its claims to lapse, and another
delivers again: at least once.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

import structlog

from sandbox.db.engine import CONNECTION_ERRORS
from sandbox.infrastructure.tasks import end_tasks
from sandbox.webhooks.attempt import RECORD_AT_MOST, Attempts, runs_of
from sandbox.webhooks.capacity import ENDPOINT_CALLS
from sandbox.webhooks.outbox import Claimed, Recorded, claim_due

_log = structlog.get_logger()


class Deliverer:
    """Delivers for any merchant that it is woken for."""

    def __init__(self, attempts: Attempts) -> None:
        self.attempts = attempts
        self._merchants: dict[str, _MerchantDeliveries] = {}
        self._stopping = False

    def wake(self, merchant_id: str) -> None:
        """Look for the merchant's due deliveries, now or as soon as what is under way allows."""
        if self._stopping:
            return
        running = self._merchants.get(merchant_id)
        if running is None:
            running = self._merchants[merchant_id] = _MerchantDeliveries(self, merchant_id)
        running.again.set()

    async def stop(self, seconds: float) -> None:
        """Claim nothing more, and give the calls under way so many seconds to end and be recorded."""
        self._stopping = True
        tasks = [running.task for running in self._merchants.values()]
        for running in self._merchants.values():
            running.again.set()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=seconds)
            await end_tasks(*pending)

    @property
    def stopping(self) -> bool:
        """Whether nothing more may be claimed."""
        return self._stopping

    def forget(self, merchant_id: str) -> None:
        """A merchant's loop has ended."""
        self._merchants.pop(merchant_id, None)


class _MerchantDeliveries:
    """One merchant's deliveries in this process: what is under way, and what waits to be recorded."""

    def __init__(self, deliverer: Deliverer, merchant_id: str) -> None:
        self.again = asyncio.Event()
        self._deliverer = deliverer
        self._merchant_id = merchant_id
        self._under_way: dict[str, int] = {}
        self._results: list[Recorded] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._recording: asyncio.Task[None] | None = None
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while True:
                await self.again.wait()
                self.again.clear()
                if not self._deliverer.stopping:
                    await self._claim()
                if not self._under_way and not self.again.is_set():
                    return
        except asyncio.CancelledError:
            for call in self._calls:  # or else stopping would wait for as long as an endpoint keeps its answer
                call.cancel()
            raise
        except CONNECTION_ERRORS as error:
            _log.warning("deliveries_lost", merchant_id=self._merchant_id, error=repr(error)[:300])
        except Exception:
            # The sweep wakes the merchant again; what was claimed lapses with its lease.
            _log.exception("deliveries_failed", merchant_id=self._merchant_id)
        finally:
            # No await since the last look, so no wake is lost between it and here.
            self._deliverer.forget(self._merchant_id)
            if self._calls:
                await asyncio.gather(*self._calls, return_exceptions=True)

    async def _claim(self) -> None:
        attempts = self._deliverer.attempts
        with attempts.claiming(self._merchant_id) as free:
            asked = dict(free.named)
            for endpoint_id, count in self._under_way.items():
                # Those that wait to be recorded count too, or they could wait beyond their leases.
                asked[endpoint_id] = min(asked.get(endpoint_id, free.others), max(0, ENDPOINT_CALLS - count))
            claimed, busy = await claim_due(self._merchant_id, asked, free.others)
            runs = runs_of(claimed)
            attempts.begin(self._merchant_id, runs)
        claims = Counter(one.endpoint_id for one in claimed)
        if any(count == asked.get(endpoint_id, free.others) for endpoint_id, count in claims.items()):
            self.again.set()  # an endpoint that used all of its capacity may have more due, and by now more capacity
        for endpoint_id, count in claims.items():
            self._under_way[endpoint_id] = self._under_way.get(endpoint_id, 0) + count
        for run in runs:
            call = asyncio.create_task(self._call(run))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        if busy - self._under_way.keys():
            attempts.look_again(self._merchant_id)

    async def _call(self, run: Sequence[Claimed]) -> None:
        deliverer = self._deliverer
        left = await deliverer.attempts.in_turn(self._merchant_id, run, self._made, lambda: not deliverer.stopping)
        if left:
            self._end(run[0].endpoint_id, left)
            self.again.set()
        if self._recording is not None:
            await asyncio.shield(self._recording)

    def _made(self, result: Recorded) -> None:
        self._results.append(result)
        if self._recording is None:
            self._recording = asyncio.create_task(self._record())

    def _end(self, endpoint_id: str, count: int) -> None:
        self._under_way[endpoint_id] -= count
        if not self._under_way[endpoint_id]:
            del self._under_way[endpoint_id]

    async def _record(self) -> None:
        """Write results, all that have come in while the last ones were being written. Bounded by what is under way."""
        try:
            while self._results:
                batch, self._results = self._results[:RECORD_AT_MOST], self._results[RECORD_AT_MOST:]
                await self._deliverer.attempts.record(self._merchant_id, batch)
                for result in batch:
                    self._end(result.claimed.endpoint_id, 1)
                self.again.set()
        finally:
            self._recording = None
