"""The passing of a merchant's time: run what falls due, in the order in which it does, stop by stop.

A stop is one transaction: under the merchant's lock it finds the earliest time at which something falls due, sets the
clock to it, takes the payout steps that are due then, and claims the webhooks. These are then posted, outside of any
transaction, and recorded before the clock goes on. A process that dies leaves the clock at a stop; going on from there
repeats nothing but webhooks that were under way.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.bulk_credit.process import credit_chunk, fail_listed_users
from sandbox.domain.clock import RUNNING, Clock, render, round_up
from sandbox.domain.unit import UnitOfWork
from sandbox.domain.webhook_schedule import judge
from sandbox.payouts.steps import BATCH, take_claimed_steps
from sandbox.unit_of_work.claim import NO_IDS, Claim, read_due, reserve_ids
from sandbox.unit_of_work.runner import NothingToDoError, UnitsOfWork
from sandbox.webhooks.attempt import RECORD_AT_MOST, Attempts, runs_of
from sandbox.webhooks.outbox import Claimed, Recorded, claim_in

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

MOST_SECONDS: Final = 25.0
"""Real time that one run may take."""
MOST_STEPS: Final = 10_000
"""Things that one run may do; it ends with the stop that reaches it."""
LIST_AT_MOST: Final = 1000
"""Things that an answer lists."""

# All that a merchant's time brings about by itself, the earliest of each kind. Whoever adds work of another kind adds a
# column here and its doing in `_stop`; work that workers do alone, in no time of the merchant's, counts as due now.
# A delivery that is under way is still due: the clock waits for it.
_NEXT_DUE: Final = """
SELECT
    (SELECT due_at FROM payouts WHERE merchant_id = $1 AND due_at IS NOT NULL ORDER BY merchant_id, due_at LIMIT 1) AS payouts,
    (SELECT min(l.due) FROM webhook_endpoints e CROSS JOIN LATERAL (
        SELECT d.next_attempt_at AS due FROM webhook_deliveries d
        WHERE d.merchant_id = $1 AND d.endpoint_id = e.id AND d.next_attempt_at IS NOT NULL
        ORDER BY d.merchant_id, d.endpoint_id, d.next_attempt_at LIMIT 1
    ) l WHERE e.merchant_id = $1 AND e.status = 'ENABLED') AS deliveries
"""

_SET: Final = "UPDATE worlds SET clock_frozen_at = $2, clock_offset = $3 WHERE merchant_id = $1"


class PayoutStep(msgspec.Struct, tag_field="kind", tag="payout_step", rename={"source": "from"}):
    """A payout's change that fell due."""

    at: str
    payout_id: str
    event_id: str
    source: str | None
    to: str


class DeliveryAttempt(msgspec.Struct, tag_field="kind", tag="delivery_attempt"):
    """An attempt at a webhook that fell due. `status` is the HTTP status, null without a response."""

    at: str
    delivery_id: str
    event_id: str
    endpoint_id: str
    attempt: int
    outcome: str
    status: int | None


@dataclass(slots=True)
class Run:
    """What one run did: how far the clock came, and why it stopped before its target (None: it did not)."""

    now: datetime
    clock: Clock
    stopped_because: str | None = None
    steps: int = 0
    ran: list[PayoutStep | DeliveryAttempt] = field(default_factory=list)

    def add(self, done: Sequence[PayoutStep | DeliveryAttempt]) -> None:
        """Count what was done, and list it while there is room."""
        self.steps += len(done)
        self.ran += done[: LIST_AT_MOST - len(self.ran)]


@dataclass(slots=True)
class _Stop:
    unit: UnitOfWork
    is_last: bool
    has_steps: bool
    has_deliveries: bool
    claimed: Sequence[Claimed] = ()


class ClockAdvancer:
    """Runs what falls due, for any merchant."""

    def __init__(self, work: UnitsOfWork, seconds: float = MOST_SECONDS, steps: int = MOST_STEPS) -> None:
        self._work = work
        self._seconds = seconds
        self._most_steps = steps
        self._attempts: Attempts | None = None
        self._posting: set[asyncio.Task[list[Recorded]]] = set()

    def start(self, attempts: Attempts) -> None:
        """Take what posts webhooks; it needs a running loop to be made."""
        self._attempts = attempts

    async def close(self, seconds: float) -> None:
        """Give webhooks under way so many seconds to end and be recorded."""
        if self._posting:
            await asyncio.wait(self._posting, timeout=seconds)

    async def run(self, merchant_id: str, target: datetime | None = None, since: datetime | None = None) -> Run:
        """Let the merchant's time pass until `target`; without one, only do what is due now.

        What happens at or before `since` is done, but neither counted nor listed: in a frozen world workers may have
        begun it. Raises NOT_FOUND if the merchant is gone, and asyncpg's errors; then the clock stands at a stop.
        """
        deadline = time.monotonic() + self._seconds
        run = Run(datetime.now(UTC), RUNNING)
        delay = 0.002
        while True:
            stop = await self._stop(merchant_id, target)
            run.now, run.clock = stop.unit.now, stop.unit.clock
            if stop.has_steps and (since is None or run.now > since):
                run.add(_steps(stop.unit))
            if stop.claimed:
                posting = asyncio.create_task(self._post(merchant_id, stop.claimed))
                self._posting.add(posting)
                posting.add_done_callback(self._posting.discard)
                await asyncio.wait({posting}, timeout=deadline - time.monotonic())
                if not posting.done():  # it goes on and is recorded; the next run waits for it
                    run.stopped_because = "a webhook endpoint has not answered yet"
                    return run
                run.add([_attempt(result) for result in posting.result() if since is None or result.at > since])
            if stop.is_last:
                return run
            if stop.has_steps or stop.claimed:
                delay = 0.002
            else:
                # What is due is under way elsewhere, in a worker that is posting it at this moment.
                await asyncio.sleep(delay)
                delay = min(delay * 2, 0.1)
            if time.monotonic() >= deadline:
                run.stopped_because = f"{self._seconds:g} seconds of real time have passed"
                return run
            if run.steps >= self._most_steps:
                run.stopped_because = f"{self._most_steps} steps were taken"
                return run

    async def credit(self, merchant_id: str) -> None:
        """Work off the merchant's bulk credits, which wait for no time of the merchant's; a run of `seconds` at most."""
        deadline = time.monotonic() + self._seconds
        more = True
        while more and time.monotonic() < deadline:
            more = await credit_chunk(self._work, merchant_id, fail_listed_users())

    async def _stop(self, merchant_id: str, target: datetime | None) -> _Stop:
        async def decide(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> _Stop:
            unit.is_quiet = True
            goal = unit.now if target is None else max(unit.now, target)
            due = await conn.fetchrow(_NEXT_DUE, merchant_id)
            assert due is not None
            is_last = not _is_due(due["payouts"], goal) and not _is_due(due["deliveries"], goal)
            stops = [at for at in (due["payouts"], due["deliveries"]) if at is not None]
            moment = goal if is_last else max(unit.now, round_up(min(stops)))  # never back
            moved = moment > unit.now
            if moved:
                unit.move_to(moment, await move_clock(conn, merchant_id, unit.clock, moment, datetime.now(UTC)))
            has_steps, has_deliveries = _is_due(due["payouts"], unit.now), _is_due(due["deliveries"], unit.now)
            stop = _Stop(unit, is_last, has_steps, has_deliveries)
            if has_steps:
                await reserve_ids(conn, unit, BATCH)
                await read_due(conn, unit, BATCH)
                take_claimed_steps(unit)
            elif not moved and not has_deliveries:
                raise NothingToDoError(stop)
            return stop

        async def claim_deliveries(conn: "PoolConnectionProxy[Any]", stop: _Stop) -> None:
            if not stop.unit.more_due and (stop.has_deliveries or stop.unit.deliveries):
                # In the same transaction, so that no worker sees them due in a frozen world.
                with self._posts().claiming(merchant_id) as free:
                    stop.claimed = await claim_in(conn, merchant_id, free.others)

        # It takes no ids before it has found something to do: how often the clock waits at a stop may not change what a
        # repeatable world's ids are.
        return await self._work.decide(Claim(merchant_id, NO_IDS), decide, after_write=claim_deliveries)

    async def _post(self, merchant_id: str, claimed: Sequence[Claimed]) -> list[Recorded]:
        attempts = self._posts()
        runs = runs_of(claimed)
        attempts.begin(merchant_id, runs)
        results: list[Recorded] = []
        await asyncio.gather(*(attempts.in_turn(merchant_id, run, results.append) for run in runs))
        for begin in range(0, len(results), RECORD_AT_MOST):
            await attempts.record(merchant_id, results[begin : begin + RECORD_AT_MOST])
        return sorted(results, key=lambda result: (result.at, result.claimed.id))

    def _posts(self) -> Attempts:
        assert self._attempts is not None, "start was not called"
        return self._attempts


async def move_clock(
    conn: "PoolConnectionProxy[Any]", merchant_id: str, clock: Clock, moment: datetime, real: datetime
) -> Clock:
    """Set a merchant's clock to `moment`, in the transaction that holds the merchant's lock; the host's time is `real`."""
    moved = clock.moved(moment, real)
    await conn.execute(_SET, merchant_id, moved.frozen_at, moved.offset)
    return moved


def _is_due(at: datetime | None, now: datetime) -> bool:
    return at is not None and at <= now


def _steps(unit: UnitOfWork) -> list[PayoutStep | DeliveryAttempt]:
    return [
        PayoutStep(unit.now_text, event.payout_id, event.id, event.from_status, event.to_status)
        for event in unit.events
        if event.payout_id is not None and event.to_status is not None
    ]


def _attempt(result: Recorded) -> PayoutStep | DeliveryAttempt:
    claimed = result.claimed
    outcome = judge(result.http_status) if result.error is None or result.gone else "failed"
    return DeliveryAttempt(
        render(result.at), claimed.id, claimed.event_id, claimed.endpoint_id, claimed.attempt, outcome, result.http_status
    )
