"""`/sandbox/v1/clock` and `/sandbox/v1/drain`: parse, call the service, render."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from litestar import Router, get, post
from litestar.response.base import ASGIResponse
from msgspec import UNSET, UnsetType

from sandbox.clock.service import ClockRun, ClockService, ClockState, Drained
from sandbox.domain.body_errors import Fault
from sandbox.domain.clock_target import moment, seconds_on
from sandbox.domain.errors import invalid
from sandbox.domain.fields import EmptyBody, Time
from sandbox.http.answers import answered, ok
from sandbox.http.guard import HttpRequest, RequestGuard
from sandbox.http.operation import Operation
from sandbox.http.paging import query

Seconds = Annotated[float, msgspec.Meta(ge=0, le=315_360_000)]


class FreezeClockBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /clock/freeze`: when to freeze, now by default."""

    at: Time | UnsetType = UNSET


class AdvanceClockBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /clock/advance`: either `seconds` or `to`."""

    seconds: Seconds | UnsetType = UNSET
    to: Time | UnsetType = UNSET


_FREEZE: Final = Operation(
    "Freeze the clock", {200: ClockRun}, FreezeClockBody, optional_body=True, errors=("INVALID_STATE",), idempotency="optional",
    example={"at": "2030-01-01T00:00:00.000Z"},
    description="With `at`, the clock first advances to that time. `at` must be at most ten years after the "
    "merchant's current time, and not before it unless the merchant has no activity yet.",
)  # fmt: skip
_ADVANCE: Final = Operation(
    "Advance the clock and run everything that falls due, in order", {200: ClockRun}, AdvanceClockBody,
    errors=("INVALID_STATE",), idempotency="optional", example={"seconds": 60},
    description="Runs payout steps, returns, webhook attempts and their retries, and responds when all of it is done "
    "and committed. What was already due is done first, and not listed. One request does at most 10,000 steps in 25 s "
    "of real time; then `complete` is false, and the same request continues. `to` must not be before the merchant's "
    "current time, nor more than ten years after it.",
)  # fmt: skip
_RESUME: Final = Operation(
    "Resume the clock from where it stands", {200: ClockState}, EmptyBody, errors=("INVALID_STATE",),
    idempotency="optional",
)  # fmt: skip
_DRAIN: Final = Operation(
    "Wait until all due work is done", {200: Drained}, EmptyBody, idempotency="optional",
    description="Payout steps, bulk credits and webhooks. After 10,000 steps or 25 s of real time it responds with "
    "`drained` false.",
)  # fmt: skip


_ONE_OF_TWO: Final = "is required if `to` is not given, and may not come with it"


def _advance_faults(members: Mapping[str, Any]) -> list[Fault]:
    return [("seconds", _ONE_OF_TWO)] if ("seconds" in members) == ("to" in members) else []


def clock_router(gate: RequestGuard, service: ClockService) -> Router:
    """The routes of the clock."""
    freeze_body = msgspec.json.Decoder(FreezeClockBody)
    advance_body = msgspec.json.Decoder(AdvanceClockBody)
    empty_body = msgspec.json.Decoder(EmptyBody)

    @get("/clock", operation_id="get_clock", opt={"operation": Operation("Get the clock", {200: ClockState})})
    async def get_clock(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.show(caller.merchant_id))

    @post("/clock/freeze", operation_id="freeze_clock", opt={"operation": _FREEZE}, status_code=200)
    async def freeze_clock(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        body, key = await gate.parse(request, freeze_body, key_required=False, body_required=False)
        target = None if body.at is UNSET else moment(body.at, "at", may_be_past=True)
        return answered(await service.freeze(gate.context(request, key), target))

    @post("/clock/advance", operation_id="advance_clock", opt={"operation": _ADVANCE}, status_code=200)
    async def advance_clock(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        body, key = await gate.parse(request, advance_body, key_required=False, check=_advance_faults)
        if (body.seconds is UNSET) == (body.to is UNSET):
            raise invalid("seconds", _ONE_OF_TWO)
        target = seconds_on(body.seconds) if body.seconds is not UNSET else moment(str(body.to), "to")
        return answered(await service.advance(gate.context(request, key), target))

    @post("/clock/resume", operation_id="resume_clock", opt={"operation": _RESUME}, status_code=200)
    async def resume_clock(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        _, key = await gate.parse(request, empty_body, key_required=False, body_required=False)
        return answered(await service.resume(gate.context(request, key)))

    @post("/drain", operation_id="drain", opt={"operation": _DRAIN}, status_code=200)
    async def drain(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        _, key = await gate.parse(request, empty_body, key_required=False, body_required=False)
        return answered(await service.drain(gate.context(request, key)))

    return Router("/sandbox/v1", route_handlers=[get_clock, freeze_clock, advance_clock, resume_clock, drain])
