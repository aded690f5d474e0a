"""Read, freeze, advance and resume a merchant's clock.

The clock never goes back, with one exception: the clock of a merchant without any activity can also be frozen at an
earlier time, so that a script can start at the same time in every run.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from sandbox.domain.clock import RUNNING, Clock, parse, render, truncate
from sandbox.domain.clock_target import TargetFn, moment, seconds_ahead
from sandbox.domain.errors import CONTENTION, Problem, invalid, unavailable
from sandbox.domain.fields import EmptyBody, Time, Timestamp, about
from sandbox.domain.idempotency import UNFINISHED, checkpoint
from sandbox.domain.unit import CommandResult, Effect, IdempotencyKey, RequestContext, UnitOfWork
from sandbox.http.body_errors import FieldProblem
from sandbox.http.operation import either, get, post
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import RETRYABLE, connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.tasks import begin_task, retrieve_error
from sandbox.unit_of_work.in_flight import in_flight
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.worlds.clock.advancer import AdvanceResult, ClockAdvancer, Step, move_clock
from sandbox.worlds.clock.lease import ClockLeasedError, clock_lease

_LAST_YEAR: Final = 9000
_SQL: Final = read_statements(__name__)
_UNSET: Final = datetime.min.replace(tzinfo=UTC)


Seconds = Annotated[float, msgspec.Meta(ge=0, le=315_360_000)]


class FreezeClockBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /clock/freeze`."""

    at: Annotated[Time | UnsetType, about("The time to freeze at; by default now.")] = UNSET


class AdvanceClockBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /clock/advance`: either `seconds` or `to`."""

    seconds: Seconds | UnsetType = UNSET
    to: Time | UnsetType = UNSET


_ONE_OF_TWO: Final = "is required if `to` is not given, and must not be given with it"


class ClockState(msgspec.Struct, kw_only=True):
    """A merchant's clock. `offset_seconds` says how far it is ahead of the host's clock; null while frozen."""

    now: str
    frozen: bool
    frozen_at: str | None
    offset_seconds: float | None


class ClockRun(ClockState, kw_only=True, rename={"began": "from"}):
    """The result of advancing the clock.

    `steps` counts the due steps that were run; `ran` lists the first 1000 in order. If `complete` is true, all due work is done
    and committed. Otherwise `stopped_because` says why the advance stopped at `now`; repeat the request to continue.
    """

    began: Timestamp
    complete: bool
    stopped_because: str | None
    steps: int
    ran: list[Step]


class Drained(msgspec.Struct):
    """Whether all due work is done, and the steps that were run. Steps that workers had already started are not listed."""

    drained: bool
    now: str
    stopped_because: str | None
    steps: int
    ran: list[Step]


def _check_advance(fields: Mapping[str, Any]) -> list[FieldProblem]:
    return [("seconds", _ONE_OF_TWO)] if ("seconds" in fields) == ("to" in fields) else []


class ClockService:
    """Reads, freezes, advances and resumes clocks. Calls `on_advanced` with the merchant's id and how far its clock moved."""

    def __init__(
        self, work: UnitOfWorkRunner, advancer: ClockAdvancer, on_advanced: Callable[[str, timedelta], Awaitable[None]]
    ) -> None:
        self._work = work
        self._advancer = advancer
        self._on_advanced = on_advanced
        self._in_progress: set[asyncio.Task[CommandResult]] = set()

    @get("/sandbox/v1/clock", "Get the clock", {200: ClockState}, psp="clock show")
    async def get_clock(self, merchant_id: str) -> ClockState:
        """Return the clock. Raises NOT_FOUND if the merchant was deleted."""
        async with connection(merchant_id) as conn:
            record = await conn.fetchrow(_SQL["clock"], merchant_id)
        if record is None:
            raise Problem("NOT_FOUND", "This merchant was deleted.")
        return _state(Clock(record["clock_frozen_at"], record["clock_offset"]))

    @post(
        "/sandbox/v1/clock/freeze",
        "Freeze the clock",
        {200: ClockRun},
        FreezeClockBody,
        errors=("INVALID_STATE",),
        example={"at": "2030-01-01T00:00:00.000Z"},
        description="With `at`, the clock first advances to that time. `at` must be at most ten years after the "
        "merchant's current time, and not before it unless the merchant has no activity yet.",
        psp="clock freeze",
    )
    async def freeze_clock(self, context: RequestContext, body: FreezeClockBody) -> CommandResult:
        """Freeze the clock now, or advance it to a target and keep it frozen there. Responds with 200 and a ClockRun.

        Raises INVALID_STATE if another request is moving the clock or the target is too late, VALIDATION_ERROR if the target is
        before the current time of a merchant with activity.
        """
        target = (lambda now: now) if body.at is UNSET else moment(body.at, "at", may_be_past=True)
        return await self._finish(self._move(context, target, freeze=True))

    @post(
        "/sandbox/v1/clock/advance",
        "Advance the clock and run everything that falls due, in order",
        {200: ClockRun},
        AdvanceClockBody,
        errors=("INVALID_STATE",),
        example={"seconds": 60},
        check=_check_advance,
        description="Runs payout steps, returns, webhook attempts and their retries, and responds when all of it is done "
        "and committed. What was already due is done first, and not listed. One request does at most 10,000 steps in 25 s "
        "of real time; then `complete` is false, and the same request continues. `to` must not be before the merchant's "
        "current time, nor more than ten years after it.",
        psp=either("clock advance", "--seconds! {seconds:number}", "--to! {to}"),
    )
    async def advance_clock(self, context: RequestContext, body: AdvanceClockBody) -> CommandResult:
        """Advance the clock to a target, whether frozen or running. Responds with 200 and a ClockRun.

        Raises the same errors as `freeze_clock`.
        """
        if (body.seconds is UNSET) == (body.to is UNSET):
            raise invalid("seconds", _ONE_OF_TWO)
        target = seconds_ahead(body.seconds) if body.seconds is not UNSET else moment(str(body.to), "to")
        return await self._finish(self._move(context, target, freeze=False))

    @post(
        "/sandbox/v1/clock/resume",
        "Resume the clock from its current time",
        {200: ClockState},
        EmptyBody,
        errors=("INVALID_STATE",),
        psp="clock resume",
    )
    async def resume_clock(self, context: RequestContext) -> CommandResult:
        """Resume a frozen clock from its current time. Responds with 200 and a ClockState."""

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            if unit.clock.frozen_at is None:
                return CommandResult(200, msgspec.json.encode(_state(unit.clock)))
            unit.effects.add(Effect.WORK_DUE)
            running = await move_clock(conn, context.merchant_id, RUNNING, unit.now, datetime.now(UTC))
            return CommandResult(200, msgspec.json.encode(_state(running)))

        async def run() -> CommandResult:
            async with clock_lease(context.merchant_id):
                return await self._work.run(context, action)

        return await self._finish(run())

    @post(
        "/sandbox/v1/drain",
        "Wait until all due work is done",
        {200: Drained},
        EmptyBody,
        description="Payout steps, bulk credits and webhooks. After 10,000 steps or 25 s of real time it responds with "
        "`drained` false.",
        psp="drain",
    )
    async def drain(self, context: RequestContext) -> CommandResult:
        """Run all work due now and wait for work in progress. Responds with 200 and Drained."""
        return await self._finish(self._drain(context))

    async def close(self, seconds: float) -> None:
        """Wait up to `seconds` for requests in progress, then up to `seconds` for webhooks in progress."""
        if self._in_progress:
            await asyncio.wait(self._in_progress, timeout=seconds)
        await self._advancer.close(seconds)

    async def _finish(self, work: Coroutine[Any, Any, CommandResult]) -> CommandResult:
        """Run work to its end, even if the client disconnects and cancels this call."""
        task = begin_task(self._in_progress, work)
        task.add_done_callback(retrieve_error)
        try:
            return await asyncio.shield(task)
        except RETRYABLE as error:
            raise unavailable(f"{CONTENTION} A repeated request resumes where this one stopped.") from error

    async def _drain(self, context: RequestContext) -> CommandResult:
        async def drain() -> CommandResult:
            await self._advancer.process_bulk_credits(context.merchant_id)
            run = await self._advancer.run(context.merchant_id)
            result = Drained(run.stopped_because is None, render(run.now), run.stopped_because, run.steps, run.executed)
            return CommandResult(200, msgspec.json.encode(result), provisional=not result.drained)

        return await self._work.run_idempotent(context, drain)

    async def _move(self, context: RequestContext, compute_target: TargetFn, *, freeze: bool) -> CommandResult:
        with in_flight(context.merchant_id, context.key):
            try:
                async with clock_lease(context.merchant_id):
                    return await self._advance(context, compute_target, freeze=freeze)
            except ClockLeasedError:
                # Another request holds the lease, or this same request in another process.
                if context.key is not None and await _is_unfinished(context.merchant_id, context.key):
                    raise Problem("IDEMPOTENCY_KEY_IN_FLIGHT") from None
                raise

    async def _advance(self, context: RequestContext, compute_target: TargetFn, *, freeze: bool) -> CommandResult:
        began = goal = _UNSET

        async def begin(conn: Connection, unit: UnitOfWork) -> CommandResult:
            nonlocal began, goal
            goal = await _goal(conn, unit, context, compute_target)
            began = min(unit.now, goal)
            if freeze:
                await move_clock(conn, unit.merchant_id, Clock(began, unit.clock.offset), began, datetime.now(UTC))
            # Store the goal under the key first. If "advance by 100 seconds" is repeated after a crash, it still means 100
            # seconds from the start of the first request.
            return CommandResult(200, render(goal).encode(), provisional=True)

        first = await self._work.run_with_reserved_key(context, begin, weight=0)
        if not first.provisional:
            return first
        run = await self._advancer.run(context.merchant_id, goal, since=began)
        await self._on_advanced(context.merchant_id, run.now - began)
        result = CommandResult(200, msgspec.json.encode(_report(began, run)))
        if context.key is None or run.stopped_because is not None:
            return result  # the same request with the same key continues to the same goal
        return await self._work.store(context, result)


async def _goal(conn: Connection, unit: UnitOfWork, context: RequestContext, compute_target: TargetFn) -> datetime:
    """Return the time to advance to.

    Raises INVALID_STATE if it is after the last year, VALIDATION_ERROR if it is in the past and the merchant has activity.
    """
    stored = checkpoint(unit, context)
    if stored is not None:
        # A running clock may have passed the stored goal since then.
        return max(parse(stored.decode()), unit.now)
    goal = truncate(compute_target(unit.now))
    if goal.year > _LAST_YEAR:
        raise Problem("INVALID_STATE", f"A clock cannot go beyond the year {_LAST_YEAR}; create a new merchant.")
    if goal < unit.now and await conn.fetchval(_SQL["has_activity"], unit.merchant_id):
        raise invalid(
            "at",
            f"must not be before the merchant's current time, {render(unit.now)}: this merchant already has activity",
        )
    return goal


async def _is_unfinished(merchant_id: str, key: IdempotencyKey) -> bool:
    async with connection(merchant_id) as conn:
        return bool(await conn.fetchval(_SQL["unfinished"], merchant_id, key.key, key.fingerprint, UNFINISHED))


def _state(clock: Clock) -> ClockState:
    frozen = clock.frozen_at is not None
    now = render(clock.now(datetime.now(UTC)))
    return ClockState(
        now=now,
        frozen=frozen,
        frozen_at=now if frozen else None,
        offset_seconds=None if frozen else round(clock.offset.total_seconds(), 6),
    )


def _report(began: datetime, run: AdvanceResult) -> ClockRun:
    return ClockRun(
        **msgspec.structs.asdict(_state(run.clock)),
        began=render(began),
        complete=run.stopped_because is None,
        stopped_because=run.stopped_because,
        steps=run.steps,
        ran=run.executed,
    )
