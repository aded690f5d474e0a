"""`/sandbox/v1/clock` and `/sandbox/v1/drain`: parse, call the service, render."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from sandbox.domain.clock_target import moment, seconds_ahead
from sandbox.domain.errors import invalid
from sandbox.domain.fields import EmptyBody, Time, about
from sandbox.domain.unit import CommandResult
from sandbox.http.body_errors import FieldProblem
from sandbox.http.operation import LIMIT, either, get, parameter, post
from sandbox.http.paging import window
from sandbox.http.request import Request
from sandbox.worlds.clock.due import DueService, DueWork
from sandbox.worlds.clock.service import ClockRun, ClockService, ClockState, Drained

Seconds = Annotated[float, msgspec.Meta(ge=0, le=315_360_000)]


class FreezeClockBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /clock/freeze`."""

    at: Annotated[Time | UnsetType, about("The time to freeze at; by default now.")] = UNSET


class AdvanceClockBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /clock/advance`: either `seconds` or `to`."""

    seconds: Seconds | UnsetType = UNSET
    to: Time | UnsetType = UNSET


_ONE_OF_TWO: Final = "is required if `to` is not given, and must not be given with it"


class ClockApi:
    """The operations of the merchant's clock."""

    def __init__(self, clock: ClockService, due: DueService) -> None:
        self._clock = clock
        self._due = due

    def _check_advance(self, fields: Mapping[str, Any]) -> list[FieldProblem]:
        return [("seconds", _ONE_OF_TWO)] if ("seconds" in fields) == ("to" in fields) else []

    @get("/sandbox/v1/clock", "Get the clock", {200: ClockState}, psp="clock show")
    async def get_clock(self, request: Request) -> ClockState:
        return await self._clock.show(request.merchant_id)

    @get(
        "/sandbox/v1/clock/due",
        "List what happens next, soonest first",
        {200: DueWork},
        query=(LIMIT, parameter("payout_id", "Only what happens to this payout.", type="string", format="uuid")),
        description="The payout steps, payments of sales and webhook attempts that the merchant's clock will run, if no "
        "request changes them first. Times before the clock's `now` are overdue: the work is in progress, or starts as soon as "
        "a worker is free. Payouts that wait for a decision without a time limit, deliveries to disabled endpoints, and "
        "deliveries that a listener sends are not listed.",
        psp="clock due --payout {payout_id}",
    )
    async def list_due(self, request: Request) -> DueWork:
        return await self._due.list(request.merchant_id, window(request.query).limit, request.query.get("payout_id"))

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
    async def freeze_clock(self, request: Request, body: FreezeClockBody) -> CommandResult:
        target = None if body.at is UNSET else moment(body.at, "at", may_be_past=True)
        return await self._clock.freeze(request.context, target)

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
    async def advance_clock(self, request: Request, body: AdvanceClockBody) -> CommandResult:
        if (body.seconds is UNSET) == (body.to is UNSET):
            raise invalid("seconds", _ONE_OF_TWO)
        target = seconds_ahead(body.seconds) if body.seconds is not UNSET else moment(str(body.to), "to")
        return await self._clock.advance(request.context, target)

    @post(
        "/sandbox/v1/clock/resume",
        "Resume the clock from its current time",
        {200: ClockState},
        EmptyBody,
        errors=("INVALID_STATE",),
        psp="clock resume",
    )
    async def resume_clock(self, request: Request) -> CommandResult:
        return await self._clock.resume(request.context)

    @post(
        "/sandbox/v1/drain",
        "Wait until all due work is done",
        {200: Drained},
        EmptyBody,
        description="Payout steps, bulk credits and webhooks. After 10,000 steps or 25 s of real time it responds with "
        "`drained` false.",
        psp="drain",
    )
    async def drain(self, request: Request) -> CommandResult:
        return await self._clock.drain(request.context)
