"""Deliver webhooks: claim due deliveries, call the endpoints in parallel, record the results in batches.

HTTP calls happen between transactions, never inside one. If a worker dies, its claims expire and another worker delivers
again: delivery is at least once.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final

import structlog

from sandbox.db.engine import CONNECTION_ERRORS
from sandbox.infrastructure.tasks import end_tasks
from sandbox.webhooks.attempt import MAX_RECORDED_ATTEMPTS, AttemptRunner, split_into_sequences
from sandbox.webhooks.capacity import ENDPOINT_CALLS
from sandbox.webhooks.outbox import AttemptResult, ClaimedDelivery, claim_due

_GATHER_SECONDS: Final = 0.01
"""How long the first result waits for others, so that one transaction records them together."""
_log = structlog.get_logger()


class Deliverer:
    """Delivers the webhooks of each merchant passed to `wake`."""

    def __init__(self, attempts: AttemptRunner) -> None:
        self.attempts = attempts
        self._merchants: dict[str, _MerchantDeliveries] = {}
        self._stopping = False

    def wake(self, merchant_id: str) -> None:
        """Deliver the merchant's due webhooks, now or as soon as the calls in progress leave capacity."""
        if self._stopping:
            return
        running = self._merchants.get(merchant_id)
        if running is None:
            running = self._merchants[merchant_id] = _MerchantDeliveries(self, merchant_id)
        running.claim_again()

    async def stop(self, seconds: float) -> None:
        """Stop claiming. Wait up to `seconds` until the calls in progress have ended and are recorded."""
        self._stopping = True
        tasks = [running.task for running in self._merchants.values()]
        for running in self._merchants.values():
            running.again.set()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=seconds)
            await end_tasks(*pending)

    @property
    def stopping(self) -> bool:
        """Whether claiming has stopped."""
        return self._stopping

    def forget(self, merchant_id: str) -> None:
        """Remove a merchant whose loop has ended."""
        self._merchants.pop(merchant_id, None)


class _MerchantDeliveries:
    """One merchant's deliveries in this process: calls in progress, and results not recorded yet."""

    def __init__(self, deliverer: Deliverer, merchant_id: str) -> None:
        self.again = asyncio.Event()
        """Set when there is something to claim, or when all results are recorded."""
        self._claims_again = False
        self._may_have_left = False
        """Whether the last claim may have left due deliveries, which can be claimed after other results are recorded."""
        self._deliverer = deliverer
        self._merchant_id = merchant_id
        self._unrecorded: dict[str, int] = {}
        """By endpoint: deliveries claimed here and not recorded yet."""
        self._results: list[AttemptResult] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._recording: asyncio.Task[None] | None = None
        self.task = asyncio.create_task(self._run())

    def claim_again(self) -> None:
        """Claim now, or when the current claim has ended."""
        self._claims_again = True
        self.again.set()

    async def _run(self) -> None:
        try:
            while True:
                await self.again.wait()
                self.again.clear()
                if self._claims_again and not self._deliverer.stopping:
                    self._claims_again = False
                    await self._claim()
                if not self._unrecorded and not self.again.is_set():
                    return
        except asyncio.CancelledError:
            for call in self._calls:  # otherwise stopping would wait until the slowest endpoint responds
                call.cancel()
            raise
        except CONNECTION_ERRORS as error:
            _log.warning("deliveries_lost", merchant_id=self._merchant_id, error=repr(error)[:300])
        except Exception:
            # The sweep wakes the merchant again, and the claims expire with their leases.
            _log.exception("deliveries_failed", merchant_id=self._merchant_id)
        finally:
            # No await since the last check of `again`, so no wake-up is lost in between.
            self._deliverer.forget(self._merchant_id)
            if self._calls:
                await asyncio.gather(*self._calls, return_exceptions=True)
            if self._recording is not None:
                await asyncio.shield(self._recording)

    async def _claim(self) -> None:
        attempts = self._deliverer.attempts
        with attempts.reserve_capacity(self._merchant_id) as free:
            capacity = dict(free.by_endpoint)
            for endpoint_id, count in self._unrecorded.items():
                # Count unrecorded results too. Without this bound they could wait until their leases have expired.
                capacity[endpoint_id] = min(capacity.get(endpoint_id, free.default), max(0, ENDPOINT_CALLS - count))
            left = free.default == 0 or 0 in capacity.values()
            # Until the claim has ended, the one before counts too: a result may be recorded meanwhile.
            self._may_have_left |= left
            claimed, busy = await claim_due(self._merchant_id, capacity, free.default)
            sequences = split_into_sequences(claimed)
            attempts.begin(self._merchant_id, sequences)
        claims = Counter(delivery.endpoint_id for delivery in claimed)
        if any(count == capacity.get(endpoint_id, free.default) for endpoint_id, count in claims.items()):
            self.claim_again()  # an endpoint that used all of its capacity can have more due, and more capacity by now
        # In a frozen world, an endpoint's deliveries are sent one at a time, even if it has capacity for more.
        self._may_have_left = left or bool(busy) or any(delivery.clock.frozen_at is not None for delivery in claimed[:1])
        for endpoint_id, count in claims.items():
            self._unrecorded[endpoint_id] = self._unrecorded.get(endpoint_id, 0) + count
        for sequence in sequences:
            call = asyncio.create_task(self._call(sequence))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        if busy - self._unrecorded.keys():
            attempts.recheck_soon(self._merchant_id)

    async def _call(self, sequence: Sequence[ClaimedDelivery]) -> None:
        deliverer = self._deliverer
        released = await deliverer.attempts.attempt_sequence(
            self._merchant_id, sequence, self._add_result, lambda: not deliverer.stopping
        )
        if released:
            self._end(sequence[0].endpoint_id, released)
            self.claim_again()

    def _add_result(self, result: AttemptResult) -> None:
        self._results.append(result)
        if self._recording is None:
            self._recording = asyncio.create_task(self._record())

    def _end(self, endpoint_id: str, count: int) -> None:
        self._unrecorded[endpoint_id] -= count
        if not self._unrecorded[endpoint_id]:
            del self._unrecorded[endpoint_id]

    async def _record(self) -> None:
        """Write the results in batches, including those that arrive meanwhile. ENDPOINT_CALLS bounds how many can wait."""
        try:
            # Calls that were claimed together end within milliseconds of each other.
            await asyncio.sleep(_GATHER_SECONDS)
            while self._results:
                batch, self._results = self._results[:MAX_RECORDED_ATTEMPTS], self._results[MAX_RECORDED_ATTEMPTS:]
                await self._deliverer.attempts.record(self._merchant_id, batch)
                for result in batch:
                    self._end(result.claimed.endpoint_id, 1)
                self._claims_again |= self._may_have_left
                self.again.set()
        finally:
            self._recording = None
