"""Advance a merchant's clock, running due work one instant at a time.

Each instant is one transaction. Under the merchant's lock it finds the earliest time at which work falls due, sets the clock
to that time, runs the payout steps and pays the sales that are due, and claims the webhooks that are due. The webhooks are then
sent outside of any transaction, and their results are recorded before the clock advances further. If the process dies, the
clock stays at the last instant. The next run continues from there, and repeats only webhooks that were being sent.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Final, Protocol

import msgspec

from sandbox.domain.clock import RUNNING, Clock, render, round_up
from sandbox.domain.enumerations import SalePaymentKind
from sandbox.domain.fields import one_of
from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.tasks import begin_task
from sandbox.payouts.steps import BATCH, take_claimed_steps
from sandbox.unit_of_work.claim import RESERVE_NO_IDS, ClaimRequest, claim_due
from sandbox.unit_of_work.runner import NothingToDoError, UnitOfWorkRunner
from sandbox.users.bulk_credit.process import credit_chunk, read_user_ids_to_fail
from sandbox.users.sales.payments import CHUNK, WEIGHT, Attempt, pay_due
from sandbox.users.sales.reporting import record_scheduled
from sandbox.webhooks.delivery.attempt import MAX_RECORDED_ATTEMPTS, AttemptRunner, split_into_sequences
from sandbox.webhooks.delivery.claims import claim_in_transaction
from sandbox.webhooks.delivery.outbox import AttemptResult, ClaimedDelivery
from sandbox.webhooks.delivery.retry_schedule import classify_response

MAX_SECONDS: Final = 25.0
"""Maximum real time of one `run`."""
MAX_STEPS: Final = 10_000
"""Maximum number of steps in one `run`. The run ends after the instant in which it reaches this number."""
MAX_LISTED_STEPS: Final = 1000
"""Maximum number of steps that a response lists."""

SENT_BY_WORKERS: Final = "e.status = 'ENABLED' AND e.relayed IS NOT TRUE"
"""The condition on a webhook endpoint `e` whose deliveries fall due. A listener sends those of a relayed endpoint."""

_SQL: Final = read_statements(__name__, sent_by_workers=SENT_BY_WORKERS)


class PayoutStep(msgspec.Struct, tag_field="kind", tag="payout_step", rename={"source": "from"}):
    """A payout's status change that fell due."""

    at: str
    payout_id: str
    event_id: str
    source: str | None
    to: str


class SaleAttempt(msgspec.Struct, tag_field="kind", tag="sale_payment"):
    """An attempt to pay a sale that fell due. `error` says why it failed; null if it succeeded."""

    at: str
    sale_id: str
    payment: SalePaymentKind
    amount: Decimal
    error: str | None


class DeliveryAttempt(msgspec.Struct, tag_field="kind", tag="delivery_attempt"):
    """A webhook delivery attempt that fell due. `status` is the HTTP status, null without a response."""

    at: str
    delivery_id: str
    event_id: str
    endpoint_id: str
    attempt: int
    outcome: Annotated[str, one_of(("succeeded", "failed", "gone"))]
    status: int | None


Step = PayoutStep | SaleAttempt | DeliveryAttempt
"""One thing that fell due and was done."""


@dataclass(slots=True)
class AdvanceResult:
    """The result of `ClockAdvancer.run`. `now` is the time that the clock reached.

    `stopped_because` is None if that is the target; otherwise it says why the run stopped early.
    """

    now: datetime
    clock: Clock
    stopped_because: str | None = None
    steps: int = 0
    executed: list[Step] = field(default_factory=list)

    def add(self, done: Sequence[Step]) -> None:
        """Count all steps, and list the first MAX_LISTED_STEPS."""
        self.steps += len(done)
        self.executed += done[: MAX_LISTED_STEPS - len(self.executed)]


@dataclass(slots=True)
class _Instant:
    unit: UnitOfWork
    is_last: bool
    has_steps: bool
    has_deliveries: bool
    paid: Sequence[Attempt] = ()
    claimed: Sequence[ClaimedDelivery] = ()

    @property
    def is_done(self) -> bool:
        """Whether no more payout steps and sales are due at this instant."""
        return not self.unit.more_due and len(self.paid) < CHUNK


class Companion(Protocol):
    """An application whose clocks move together with the merchant's clock."""

    async def next_stop(self) -> datetime:
        """Return the next time at which the application has something to do, or the end of the move."""

    async def reach(self, moment: datetime) -> None:
        """Move its clocks to a time, and wait until it has done what was due."""


class Companions(Protocol):
    """Knows which merchants' clocks an application follows."""

    def move(self, merchant_id: str, target: datetime) -> AbstractAsyncContextManager[Companion | None]:
        """Yield what moves together with a merchant's clock to a time, if there is anything. Raises INVALID_STATE."""


class ClockAdvancer:
    """Advances merchants' clocks and runs the work that falls due."""

    def __init__(self, work: UnitOfWorkRunner, seconds: float = MAX_SECONDS, steps: int = MAX_STEPS) -> None:
        self._work = work
        self.companions: Companions | None = None
        self._seconds = seconds
        self._max_steps = steps
        self._attempts: AttemptRunner | None = None
        self._sending: set[asyncio.Task[list[AttemptResult]]] = set()

    def set_attempts(self, attempts: AttemptRunner) -> None:
        """Set the object that sends webhooks. It needs a running event loop, so it is not passed to the constructor."""
        self._attempts = attempts

    async def close(self, seconds: float) -> None:
        """Wait up to `seconds` until the webhooks in progress are sent and recorded."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=seconds)

    async def run(self, merchant_id: str, target: datetime | None = None, since: datetime | None = None) -> AdvanceResult:
        """Advance the merchant's clock to `target`, running due work. Without a target, run only the work due now.

        Work due at or before `since` runs, but is neither counted nor listed: workers may have started it already. Raises
        NOT_FOUND if the merchant was deleted, INVALID_STATE if a companion does not follow, and asyncpg's errors. After an
        error, the clock is at the last committed instant.
        """
        if target is None or self.companions is None:
            return await self._run(merchant_id, target, since, None)
        async with self.companions.move(merchant_id, target) as companion:
            return await self._run(merchant_id, target, since, companion)

    async def _run(
        self, merchant_id: str, target: datetime | None, since: datetime | None, companion: Companion | None
    ) -> AdvanceResult:
        deadline = time.monotonic() + self._seconds
        result = AdvanceResult(datetime.now(UTC), RUNNING)
        delay = 0.002
        while True:
            stop = target if companion is None else await companion.next_stop()
            instant = await self._run_instant(merchant_id, stop)
            result.now, result.clock = instant.unit.now, instant.unit.clock
            record_scheduled(merchant_id, "clock", instant.paid)
            if since is None or result.now > since:
                result.add(_steps(instant.unit))
                result.add([_payment(instant.unit, attempt) for attempt in instant.paid])
            if companion is not None:  # before the webhooks are sent, because it compares their time with its own
                await companion.reach(result.now)
            if instant.claimed:
                sending = begin_task(self._sending, self._send(merchant_id, instant.claimed))
                await asyncio.wait({sending}, timeout=deadline - time.monotonic())
                if not sending.done():  # the task continues and records its results; the next `run` waits for it
                    result.stopped_because = "a webhook endpoint has not responded yet"
                    return result
                result.add([_attempt(attempt) for attempt in sending.result() if since is None or attempt.at > since])
            if instant.is_last and stop == target:
                return result
            if instant.is_last or instant.has_steps or instant.paid or instant.claimed:
                delay = 0.002
            else:
                # A worker is sending the deliveries that are due at this instant. Wait for it.
                await asyncio.sleep(delay)
                delay = min(delay * 2, 0.1)
            if time.monotonic() >= deadline:
                result.stopped_because = f"{self._seconds:g} seconds of real time have passed"
                return result
            if result.steps >= self._max_steps:
                result.stopped_because = f"{self._max_steps} steps were taken"
                return result

    async def process_bulk_credits(self, merchant_id: str) -> None:
        """Process the merchant's bulk credits, which do not depend on its clock, until done or out of time."""
        deadline = time.monotonic() + self._seconds
        more = True
        while more and time.monotonic() < deadline:
            more = await credit_chunk(self._work, merchant_id, read_user_ids_to_fail())

    async def _run_instant(self, merchant_id: str, target: datetime | None) -> _Instant:
        async def decide(conn: Connection, unit: UnitOfWork) -> _Instant:
            unit.suppress_wakeups = True
            goal = unit.now if target is None else max(unit.now, target)
            due = await conn.fetchrow(_SQL["next_due"], merchant_id)
            assert due is not None
            due_times = [at for at in due.values() if at is not None]
            is_last = not any(at <= goal for at in due_times)
            moment = goal if is_last else max(unit.now, round_up(min(due_times)))  # overdue work does not set the clock back
            moved = moment > unit.now
            if moved:
                unit.set_time(moment, await move_clock(conn, merchant_id, unit.clock, moment, datetime.now(UTC)))
            has_steps, has_sales, has_deliveries = (_is_due(due[kind], unit.now) for kind in ("payouts", "sales", "deliveries"))
            instant = _Instant(unit, is_last, has_steps, has_deliveries)
            if has_steps or has_sales:
                await claim_due(conn, unit, BATCH if has_steps else 0, WEIGHT if has_sales else 0)
                take_claimed_steps(unit)
                if has_sales and not unit.more_due:
                    instant.paid = await pay_due(conn, unit)
            elif not moved and not has_deliveries:
                raise NothingToDoError(instant)
            return instant

        async def claim_deliveries(conn: Connection, instant: _Instant) -> None:
            if instant.is_done and (instant.has_deliveries or instant.unit.deliveries):
                # Claim the deliveries in the same transaction. Otherwise a worker could claim them while the clock is frozen.
                with self._require_attempts().reserve_capacity(merchant_id) as free:
                    instant.claimed = await claim_in_transaction(conn, merchant_id, free.default)

        # If nothing is due, reserve no ids: the number of polls must not affect the ids of a seeded world.
        return await self._work.run_transaction(ClaimRequest(merchant_id, RESERVE_NO_IDS), decide, after_write=claim_deliveries)

    async def _send(self, merchant_id: str, claimed: Sequence[ClaimedDelivery]) -> list[AttemptResult]:
        attempts = self._require_attempts()
        sequences = split_into_sequences(claimed)
        attempts.begin(merchant_id, sequences)
        results: list[AttemptResult] = []
        await asyncio.gather(*(attempts.attempt_sequence(merchant_id, sequence, results.append) for sequence in sequences))
        for start in range(0, len(results), MAX_RECORDED_ATTEMPTS):
            await attempts.record(merchant_id, results[start : start + MAX_RECORDED_ATTEMPTS])
        return sorted(results, key=lambda result: (result.at, result.claimed.id))

    def _require_attempts(self) -> AttemptRunner:
        assert self._attempts is not None, "set_attempts was not called"
        return self._attempts


async def move_clock(conn: Connection, merchant_id: str, clock: Clock, moment: datetime, wall_now: datetime) -> Clock:
    """Set a merchant's clock to `moment`. `wall_now` is the host's time. The transaction must hold the merchant's lock."""
    moved = clock.moved(moment, wall_now)
    await conn.execute(_SQL["set"], merchant_id, moved.frozen_at, moved.offset)
    return moved


def _is_due(at: datetime | None, now: datetime) -> bool:
    return at is not None and at <= now


def _steps(unit: UnitOfWork) -> list[Step]:
    return [
        PayoutStep(unit.now_text, event.payout_id, event.id, event.from_status, event.to_status)
        for event in unit.events
        if event.payout_id is not None and event.to_status is not None
    ]


def _payment(unit: UnitOfWork, attempt: Attempt) -> Step:
    return SaleAttempt(unit.now_text, attempt.sale_id, attempt.kind, attempt.amount, attempt.error)


def _attempt(result: AttemptResult) -> Step:
    claimed, response = result.claimed, result.exchange.result
    outcome = classify_response(response.status) if response.error is None or result.gone else "failed"
    return DeliveryAttempt(
        render(result.at), claimed.id, claimed.event_id, claimed.endpoint_id, claimed.attempt, outcome, response.status
    )
