"""A merchant's clock: read it, freeze it, let time pass in it, and let it run again.

It never goes back, but for one case: a world in which nothing has happened yet may be frozen at any moment, so that a script
can begin at the same one each time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
from piccolo.query.methods.select import First

from sandbox.clock.advancer import ClockAdvancer, DeliveryAttempt, PayoutStep, Run, move_clock
from sandbox.clock.lease import ClockLeasedError, clock_lease
from sandbox.db.engine import RETRYABLE, connection, db_errors_as_503
from sandbox.db.rows import by_key
from sandbox.domain.clock import RUNNING, Clock, parse, render, truncate
from sandbox.domain.clock_target import Target
from sandbox.domain.errors import CONTENTION, Problem, invalid, unavailable
from sandbox.domain.idempotency import UNFINISHED, checkpoint
from sandbox.domain.unit import CommandResult, Effect, IdempotencyKey, RequestContext, UnitOfWork
from sandbox.unit_of_work.in_flight import in_flight
from sandbox.unit_of_work.runner import UnitsOfWork
from sandbox.unit_of_work.tables import Worlds

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_LAST_YEAR: Final = 9000
_NEVER: Final = datetime.min.replace(tzinfo=UTC)

# Nothing but an opening balance: then ids and times of what comes follow from the clock alone, wherever it is set.
_HAS_HAPPENED: Final = """
SELECT EXISTS (SELECT FROM events WHERE merchant_id = $1) OR EXISTS (SELECT FROM users WHERE merchant_id = $1)
"""

_UNFINISHED: Final = f"""
SELECT EXISTS (
    SELECT FROM (SELECT fingerprint, status FROM idempotency_keys WHERE {by_key("idempotency_keys", "key", "$2")} OFFSET 0) k
    WHERE k.fingerprint = $3 AND k.status = $4
)
"""  # noqa: S608 -- constants


class ClockState(msgspec.Struct, kw_only=True):
    """A merchant's clock. `offset_seconds` is how far it is ahead of the host's clock; null while frozen."""

    now: str
    frozen: bool
    frozen_at: str | None
    offset_seconds: float | None


class ClockRun(ClockState, kw_only=True, rename={"began": "from"}):
    """What an advance of the clock did.

    `steps` counts everything that fell due and was done; `ran` lists the first 1000 in order. If `complete`, all of it is
    done and committed. If not, `stopped_because` says why it stopped at `now`; send the same request again to continue.
    """

    began: str
    complete: bool
    stopped_because: str | None
    steps: int
    ran: list[PayoutStep | DeliveryAttempt]


class Drained(msgspec.Struct):
    """Whether all due work is done, and what was done. What workers had already begun is not listed."""

    drained: bool
    now: str
    stopped_because: str | None
    steps: int
    ran: list[PayoutStep | DeliveryAttempt]


class ClockService:
    """What the sandbox offers of a merchant's clock. `advanced` is told by how much a merchant's clock was advanced."""

    def __init__(
        self, work: UnitsOfWork, advancer: ClockAdvancer, advanced: Callable[[str, timedelta], Awaitable[None]]
    ) -> None:
        self._work = work
        self._advancer = advancer
        self._advanced = advanced
        self._under_way: set[asyncio.Task[CommandResult]] = set()

    async def show(self, merchant_id: str) -> ClockState:
        """The clock."""
        async with db_errors_as_503():
            record = await _clock(merchant_id)
        if record is None:
            raise Problem("NOT_FOUND", "This merchant was deleted.")
        return _state(Clock(record["clock_frozen_at"], record["clock_offset"]))

    async def freeze(self, context: RequestContext, target: Target | None) -> CommandResult:
        """Freeze the clock where it stands, or let time pass to `target` and stay frozen there: 200 with a ClockRun."""
        return await self._finish(self._moved(context, target or (lambda now: now), freeze=True))

    async def advance(self, context: RequestContext, target: Target) -> CommandResult:
        """Let time pass to `target`, frozen or running: 200 with a ClockRun. INVALID_STATE while another moves the clock."""
        return await self._finish(self._moved(context, target, freeze=False))

    async def resume(self, context: RequestContext) -> CommandResult:
        """Resume the clock from where it stands: 200 with a ClockState."""

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            if unit.clock.frozen_at is None:
                return CommandResult(200, msgspec.json.encode(_state(unit.clock)))
            unit.effects.add(Effect.WORK_DUE)
            running = await move_clock(conn, context.merchant_id, RUNNING, unit.now, datetime.now(UTC))
            return CommandResult(200, msgspec.json.encode(_state(running)))

        async def resumed() -> CommandResult:
            async with clock_lease(context.merchant_id):
                return await self._work.run(context, action)

        return await self._finish(resumed())

    async def drain(self, context: RequestContext) -> CommandResult:
        """Do what is due now, and wait for what is under way: 200 with Drained."""
        return await self._finish(self._drain(context))

    async def close(self, seconds: float) -> None:
        """Give what is under way so many seconds to end."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=seconds)
        await self._advancer.close(seconds)

    async def _finish(self, work: Coroutine[Any, Any, CommandResult]) -> CommandResult:
        """Wait for work that goes on to its end though its caller may leave."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            async with db_errors_as_503():
                return await asyncio.shield(task)
        except RETRYABLE as error:
            raise unavailable(f"{CONTENTION} It continues where it stopped.") from error

    async def _drain(self, context: RequestContext) -> CommandResult:
        async def drained() -> CommandResult:
            await self._advancer.credit(context.merchant_id)
            run = await self._advancer.run(context.merchant_id)
            found = Drained(run.stopped_because is None, render(run.now), run.stopped_because, run.steps, run.ran)
            return CommandResult(200, msgspec.json.encode(found), provisional=not found.drained)

        return await self._work.run_repeatable(context, drained)

    async def _moved(self, context: RequestContext, target: Target, *, freeze: bool) -> CommandResult:
        with in_flight(context.merchant_id, context.key):
            try:
                async with clock_lease(context.merchant_id):
                    return await self._pass(context, target, freeze=freeze)
            except ClockLeasedError:
                # By another request; or by this very one, in another process.
                if context.key is not None and await _is_unfinished(context.merchant_id, context.key):
                    raise Problem("IDEMPOTENCY_KEY_IN_FLIGHT") from None
                raise

    async def _pass(self, context: RequestContext, target: Target, *, freeze: bool) -> CommandResult:
        began = goal = _NEVER

        async def begin(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            nonlocal began, goal
            goal = await _goal(conn, unit, context, target)
            began = min(unit.now, goal)
            if freeze:
                await move_clock(conn, unit.merchant_id, Clock(began, unit.clock.offset), began, datetime.now(UTC))
            # The goal is stored under the key before anything happens: "100 seconds on", repeated after a crash on the way,
            # means 100 seconds from where the first one began.
            return CommandResult(200, render(goal).encode(), provisional=True)

        begun = await self._work.run_part(context, begin, weight=0)
        if not begun.provisional:
            return begun
        run = await self._advancer.run(context.merchant_id, goal, since=began)
        await self._advanced(context.merchant_id, run.now - began)
        result = CommandResult(200, msgspec.json.encode(_report(began, run)))
        if context.key is None or run.stopped_because is not None:
            return result  # repeated under its key, it continues to the same goal
        return await self._work.store(context, result)


async def _goal(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, context: RequestContext, target: Target) -> datetime:
    """The time to advance to. Raises INVALID_STATE past the last year, VALIDATION_ERROR for a time that may not be."""
    stored = checkpoint(unit, context)
    if stored is not None:
        # A clock that runs may have passed it by itself since then.
        return max(parse(stored.decode()), unit.now)
    goal = truncate(target(unit.now))
    if goal.year > _LAST_YEAR:
        raise Problem("INVALID_STATE", f"A clock cannot pass the year {_LAST_YEAR}; make a new merchant.")
    if goal < unit.now and await conn.fetchval(_HAS_HAPPENED, unit.merchant_id):
        raise invalid(
            "at",
            f"must not be before the merchant's current time, {render(unit.now)}: this merchant already has activity",
        )
    return goal


async def _is_unfinished(merchant_id: str, key: IdempotencyKey) -> bool:
    async with connection() as conn:
        return bool(await conn.fetchval(_UNFINISHED, merchant_id, key.key, key.fingerprint, UNFINISHED))


def _clock(merchant_id: str) -> First:
    w = Worlds
    return w.select(w.clock_frozen_at, w.clock_offset).where(w.merchant_id == merchant_id).first()


def _state(clock: Clock) -> ClockState:
    frozen = clock.frozen_at is not None
    now = render(clock.now(datetime.now(UTC)))
    return ClockState(
        now=now,
        frozen=frozen,
        frozen_at=now if frozen else None,
        offset_seconds=None if frozen else round(clock.offset.total_seconds(), 6),
    )


def _report(began: datetime, run: Run) -> ClockRun:
    return ClockRun(
        **msgspec.structs.asdict(_state(run.clock)),
        began=render(began),
        complete=run.stopped_because is None,
        stopped_because=run.stopped_because,
        steps=run.steps,
        ran=run.ran,
    )
