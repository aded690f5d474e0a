"""Deliver webhooks: claim due deliveries, call the endpoints in parallel, record the results in batches.

HTTP calls happen between transactions, never inside one. If a worker dies, its claims expire and another worker delivers
them again: delivery is at least once.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Final

import structlog

from sandbox.domain.events import NewDelivery
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS
from sandbox.infrastructure.tasks import begin_task, end_tasks
from sandbox.webhooks.delivery.attempt import MAX_ATTEMPT_DURATION, MAX_RECORDED_ATTEMPTS, AttemptRunner, split_into_sequences
from sandbox.webhooks.delivery.capacity import ENDPOINT_CALLS, FreeCapacity
from sandbox.webhooks.delivery.claims import FROZEN_CLAIM_LIMIT, claim_due
from sandbox.webhooks.delivery.leasing import DELIVERIES_PER_CALL, TransactionDeliveries
from sandbox.webhooks.delivery.outbox import AttemptResult, ClaimedDelivery

_GATHER_SECONDS: Final = 0.01
"""How long the first result waits for others, so that one transaction records them together."""
_MAX_UNRECORDED: Final = ENDPOINT_CALLS * DELIVERIES_PER_CALL
"""Maximum number of deliveries to one endpoint in progress or waiting to be recorded."""
_SEQUENCE_SECONDS: Final = 1.0
"""Time limit for starting another delivery of a sequence. After that, the rest are released, and the next claim sends them in
parallel.

It also bounds the age of the clock, URL and secret that an attempt uses.
"""
_MAX_CONCURRENT_TRANSACTIONS: Final = 4
"""Maximum number of claims running at the same time, and of transactions that record results.

While a merchant waits for its turn, its wake-ups and results gather, so that one transaction serves more of them.
"""
_NO_CAPACITY: Final = FreeCapacity({}, 0)
_log = structlog.get_logger()


class Deliverer:
    """Delivers the webhooks of each merchant passed to `wake`."""

    def __init__(self, attempts: AttemptRunner) -> None:
        self.attempts = attempts
        self._merchants: dict[str, _MerchantDeliveries] = {}
        self._stopping = False
        self.claim_slots = asyncio.Semaphore(_MAX_CONCURRENT_TRANSACTIONS)
        self.record_slots = asyncio.Semaphore(_MAX_CONCURRENT_TRANSACTIONS)

    def wake(self, merchant_id: str) -> None:
        """Deliver the merchant's due webhooks, now or as soon as the calls in progress leave capacity."""
        if not self._stopping:
            self._merchant(merchant_id).claim_again()

    @contextmanager
    def leasing(self) -> Iterator[TransactionDeliveries]:
        """Claim due deliveries and lease new ones in the caller's transaction, and send them after its COMMIT.

        Yields a hook for one transaction. Leaving the context normally sends the deliveries, so leave it only after the COMMIT.
        After an error nothing is sent. If the outcome of the COMMIT was unknown, or if this process dies, the leases expire and
        the sweep finds the deliveries.
        """
        deliveries = TransactionDeliveries(self.attempts, self._room)
        try:
            yield deliveries
        except BaseException:
            deliveries.cancel()
            raise
        for merchant_id, sequences in deliveries.sequences.items():
            self._send(merchant_id, sequences)

    def may_send_now(self, merchant_id: str, deliveries: Iterable[NewDelivery]) -> bool:
        """Return whether one of the new deliveries is due, not leased, and not to an endpoint that is paused."""
        endpoints = {delivery.endpoint_id for delivery in deliveries if delivery.enabled and delivery.leased_until is None}
        return bool(endpoints - self.attempts.paused(merchant_id)) if endpoints else False

    def _room(self, merchant_id: str, endpoint_id: str) -> int:
        """Return how many more deliveries to an endpoint can be attempted before results are recorded."""
        if self._stopping:
            return 0
        running = self._merchants.get(merchant_id)
        return _MAX_UNRECORDED if running is None else running.room(endpoint_id)

    def _send(self, merchant_id: str, sequences: Sequence[Sequence[ClaimedDelivery]]) -> None:
        """Send leased deliveries, unless the COMMIT took so long that an attempt could outlast its lease."""
        if not sequences:
            return
        if self._stopping or datetime.now(UTC) > sequences[0][0].lease - MAX_ATTEMPT_DURATION:
            for sequence in sequences:  # the leases expire, and another worker sends them
                self.attempts.end(merchant_id, sequence[0].endpoint_id, 1)
        else:
            self._merchant(merchant_id).send(sequences)

    def _merchant(self, merchant_id: str) -> "_MerchantDeliveries":
        running = self._merchants.get(merchant_id)
        if running is None:
            running = self._merchants[merchant_id] = _MerchantDeliveries(self, merchant_id)
        return running

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
        """Set when there is something to claim, and after each batch of results is recorded."""
        self._claims_again = False
        self.may_have_more_due = False
        """Whether the last claim may have left due deliveries, which can be claimed after other results are recorded."""
        self._deliverer = deliverer
        self._merchant_id = merchant_id
        self._unrecorded: dict[str, int] = {}
        """By endpoint: deliveries claimed or leased here, whose results are not recorded yet."""
        self._stopped: Set[str] = frozenset()
        """Endpoints that the last claim found disabled or deleted. The rest of their sequences is not sent."""
        self._claimable = _NO_CAPACITY
        """The number of deliveries that the current claim can return."""
        self._results: list[AttemptResult] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._recording: asyncio.Task[None] | None = None
        self.task = asyncio.create_task(self._run())

    def claim_again(self) -> None:
        """Claim now, or when the current claim has ended."""
        self._claims_again = True
        self.again.set()

    def room(self, endpoint_id: str) -> int:
        """Return how many more deliveries to an endpoint can be attempted before results are recorded.

        Without this bound, results could wait until their leases have expired.
        """
        claimable = self._claimable.by_endpoint.get(endpoint_id, self._claimable.default)
        return max(0, _MAX_UNRECORDED - self._unrecorded.get(endpoint_id, 0) - claimable)

    def send(self, sequences: Sequence[Sequence[ClaimedDelivery]]) -> None:
        """Attempt claimed or leased deliveries, whose call slots are already reserved."""
        for sequence in sequences:
            endpoint_id = sequence[0].endpoint_id
            self._unrecorded[endpoint_id] = self._unrecorded.get(endpoint_id, 0) + len(sequence)
            begin_task(self._calls, self._call(sequence))

    async def _run(self) -> None:
        try:
            while True:
                await self.again.wait()
                self.again.clear()
                if self._claims_again:
                    async with self._deliverer.claim_slots:
                        self._claims_again = False
                        if not self._deliverer.stopping:
                            await self._claim()
                if not self._unrecorded and not self.again.is_set():
                    return
        except asyncio.CancelledError:
            for call in self._calls:  # otherwise stopping would wait until the slowest endpoint responds
                call.cancel()
            raise
        except CONNECTION_ERRORS as error:
            _log.warning("deliveries_interrupted", merchant_id=self._merchant_id, error=repr(error)[:300])
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
        unrecorded = set(self._unrecorded)
        with attempts.reserve_capacity(self._merchant_id) as free:
            capacity = dict(free.by_endpoint)
            for endpoint_id in self._unrecorded:
                capacity[endpoint_id] = min(capacity.get(endpoint_id, free.default), self.room(endpoint_id))
            full = {endpoint_id for endpoint_id, count in capacity.items() if not count}
            may_leave_due = free.default == 0 or bool(full - attempts.paused(self._merchant_id))
            # While this claim runs, keep the previous claim's flag as well, because a result can be recorded in between.
            self.may_have_more_due |= may_leave_due
            self._claimable = FreeCapacity(capacity, free.default)
            try:
                claim = await claim_due(self._merchant_id, capacity, free.default)
            finally:
                self._claimable = _NO_CAPACITY
            self._stopped = self._unrecorded.keys() - claim.enabled
            claimed = claim.deliveries
            sequences = split_into_sequences(claimed)
            attempts.begin(self._merchant_id, sequences)
        claims = Counter(delivery.endpoint_id for delivery in claimed)
        if any(count == capacity.get(endpoint_id, free.default) for endpoint_id, count in claims.items()):
            self.claim_again()  # an endpoint that used all of its capacity can have more due, and more capacity by now
        # A paced endpoint can have deliveries that wait for the result of another one, and so can a busy one.
        may_leave_due |= bool(claim.busy) or claim.has_paced or any(count >= FROZEN_CLAIM_LIMIT for count in claims.values())
        self.may_have_more_due = may_leave_due
        self.send(sequences)
        busy_elsewhere = claim.busy - self._unrecorded.keys()
        if claim.recheck_after == 0 or busy_elsewhere & unrecorded:  # those were recorded while this claim ran
            self.claim_again()
        elif claim.recheck_after is not None:
            attempts.recheck_after(self._merchant_id, claim.recheck_after)
        if busy_elsewhere - unrecorded:
            attempts.recheck_soon(self._merchant_id)

    async def _call(self, sequence: Sequence[ClaimedDelivery]) -> None:
        deliverer = self._deliverer
        # In a frozen world the order counts, so a sequence stays together however slow the endpoint is.
        is_frozen = sequence[0].clock.frozen_at is not None
        endpoint_id, ends_at = sequence[0].endpoint_id, monotonic() + _SEQUENCE_SECONDS

        def may_continue() -> bool:
            if deliverer.stopping or endpoint_id in self._stopped:
                return False
            return is_frozen or (monotonic() < ends_at and endpoint_id not in deliverer.attempts.paused(self._merchant_id))

        released = await deliverer.attempts.attempt_sequence(self._merchant_id, sequence, self._add_result, may_continue)
        if released:
            self._end(endpoint_id, released)
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
        """Write the results in batches, including those that arrive meanwhile. _MAX_UNRECORDED bounds how many can wait."""
        try:
            # Calls that were claimed together end within milliseconds of each other.
            await asyncio.sleep(_GATHER_SECONDS)
            while self._results:
                async with self._deliverer.record_slots:
                    batch, self._results = self._results[:MAX_RECORDED_ATTEMPTS], self._results[MAX_RECORDED_ATTEMPTS:]
                    await self._deliverer.attempts.record(self._merchant_id, batch)
                for result in batch:
                    self._end(result.claimed.endpoint_id, 1)
                self._claims_again |= self.may_have_more_due
                self.again.set()
        finally:
            self._recording = None
