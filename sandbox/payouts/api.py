"""`/api/v1/payouts`: parse, call the service, render."""

from typing import Final, Literal, get_args

import msgspec
from litestar import Router, get, patch, post
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from sandbox.domain.choices import DestType
from sandbox.domain.fields import EmptyBody
from sandbox.domain.payout import Payout
from sandbox.domain.payout_states import STATUSES
from sandbox.domain.scenario_engine import HEADER
from sandbox.http.answers import answered, ok
from sandbox.http.guard import HttpRequest, RequestGuard, header, is_head
from sandbox.http.operation import CREATED_FROM, CREATED_TO, CURSOR, LIMIT, Operation, parameter, several
from sandbox.http.paging import choice, query, seconds, window
from sandbox.payouts.requests import CreatePayoutBody, CreatePayoutsBody
from sandbox.payouts.service import PayoutService, Timeline

EXAMPLE: Final = {
    "merchant_reference": "INV-1001",
    "amount": "1500.00",
    "dest_type": "BANK",
    "bank_code": "HBL",
    "account_number": "12345678900001",
    "account_title": "AYESHA KHAN",
}
LONGEST_WAIT: Final = 30
_FILTERS: Final = (
    "limit", "cursor", "status", "metadata", "dest_type", "merchant_reference", "user_id", "created_from", "created_to",
)  # fmt: skip
_SEE: Final = {
    "get": ("get_payout", "payout_id"),
    "timeline": ("get_payout_timeline", "payout_id"),
    "cancel": ("cancel_payout", "payout_id"),
    "approve": ("approve_payout", "payout_id"),
    "reject": ("reject_payout", "payout_id"),
    "reinitiate": ("reinitiate_payout", "payout_id"),
}

_CREATE: Final = Operation(
    "Create a payout", {201: Payout}, CreatePayoutBody, errors=("DUPLICATE_REFERENCE", "INSUFFICIENT_BALANCE"),
    idempotency="required", example=EXAMPLE, links=_SEE,
    description="The last four digits of the account choose the scenario, unless an `X-Sandbox-Scenario` header names "
    "one; see the list of scenarios.",
)  # fmt: skip
_GET: Final = Operation(
    "Get a payout, optionally once it has reached a status", {200: Payout}, errors=("NOT_FOUND",),
    query=(
        parameter(
            "wait_for",
            "Hold the response until the payout is in one of these states, has been in one since it was last "
            "reinitiated, or has ended otherwise (FAILED, CANCELLED, REJECTED, RETURNED).",
            **several(STATUSES),
        ),
        parameter("timeout", "Seconds of real time to wait. After that, the payout is returned as it is.",
                  type="number", minimum=0,
                  maximum=LONGEST_WAIT, default=10),
    ),
)  # fmt: skip


class CreatedPayout(msgspec.Struct):
    """An item of a batch that was created."""

    status: Literal[201]
    payout: Payout


class PayoutResults(msgspec.Struct):
    """The result of each item of a batch, in order."""

    results: list[CreatedPayout]


_SCENARIO: Final = HEADER.lower().encode()
_CREATE_MANY: Final = Operation(
    "Create up to 1000 payouts, each independently", {200: PayoutResults}, CreatePayoutsBody,
    idempotency="required", example={"payouts": [EXAMPLE]},
    description="Results are in the order of the items. An invalid item is reported in its result and does not stop "
    "the others. The whole request is refused only if it is not valid JSON or not a list of 1 to 1000 items. "
    "The body is limited to 2 MiB.",
)  # fmt: skip
_LIST: Final = Operation(
    "List payouts, newest first", {200: list[Payout]},
    query=(
        LIMIT, CURSOR,
        parameter("status", "Only payouts in one of these states.", **several(STATUSES)),
        parameter("metadata", "Only payouts with this pair in their metadata: `metadata[order]=17`.", type="object",
                  propertyNames={"type": "string", "minLength": 1, "maxLength": 64},
                  additionalProperties={"type": "string", "maxLength": 500}, maxProperties=20),
        parameter("dest_type", "Only payouts to this kind of destination.", type="string", enum=list(get_args(DestType))),
        parameter("merchant_reference", "Only the payout with this reference.", type="string", minLength=1, maxLength=64),
        parameter("user_id", "Only payouts of this user.", type="string", format="uuid"),
        CREATED_FROM, CREATED_TO,
    ),
)  # fmt: skip


def _moving(summary: str, *errors: str, admin: bool = False) -> Operation:
    return Operation(
        summary, {200: Payout}, EmptyBody, errors=("NOT_FOUND", "INVALID_STATE", *errors), idempotency="required",
        security="admin-key" if admin else "key",
    )  # fmt: skip


def payouts_router(gate: RequestGuard, service: PayoutService) -> Router:
    """The routes of payouts."""
    create_body = msgspec.json.Decoder(CreatePayoutBody)
    batch_body = msgspec.json.Decoder(CreatePayoutsBody)
    empty_body = msgspec.json.Decoder(EmptyBody)

    @post("/", operation_id="create_payout", opt={"operation": _CREATE})
    async def create_payout(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await gate.parse(request, create_body, check=service.check)
        scenario = header(request, _SCENARIO)
        return answered(await service.create(gate.context(request, key), parsed, scenario))

    @post("/batch", operation_id="create_payouts", opt={"operation": _CREATE_MANY})
    async def create_payouts(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await gate.parse(request, batch_body)
        scenario = header(request, _SCENARIO)
        return answered(await service.create_many(gate.context(request, key), parsed, scenario))

    @get("/", operation_id="list_payouts", opt={"operation": _LIST})
    async def list_payouts(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        params = query(request, _FILTERS)
        statuses = list(dict.fromkeys(params["status"].split(","))) if "status" in params else list(STATUSES)
        dest_types = choice(params, "dest_type", ("BANK", "WALLET"))
        return ok(await service.list(caller.merchant_id, window(params), statuses, dest_types, params))

    @get("/{payout_id:str}", operation_id="get_payout", opt={"operation": _GET})
    async def get_payout(request: HttpRequest, payout_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        params = query(request, ("wait_for", "timeout"))
        timeout = seconds(params, "timeout", 10, LONGEST_WAIT)
        if "wait_for" not in params:
            return ok(await service.get(caller.merchant_id, payout_id))
        states = params["wait_for"].split(",")
        return ok(await service.wait(caller.merchant_id, payout_id, states, 0 if is_head(request) else timeout))

    @get(
        "/{payout_id:str}/timeline", operation_id="get_payout_timeline",
        opt={"operation": Operation("List every change of a payout, oldest first", {200: Timeline}, errors=("NOT_FOUND",))},
    )  # fmt: skip
    async def get_payout_timeline(request: HttpRequest, payout_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.timeline(caller.merchant_id, payout_id))

    async def move(request: HttpRequest, payout_id: str, verb: str) -> ASGIResponse:
        caller = await gate.caller(request)
        if verb in ("approve", "reject"):
            caller.require_admin()
        _, key = await gate.parse(request, empty_body, body_required=False)
        return answered(await service.move(gate.context(request, key), payout_id, verb))

    @post(
        "/{payout_id:str}/cancel", operation_id="cancel_payout", opt={"operation": _moving("Cancel a payout")},
        status_code=200,
    )  # fmt: skip
    async def cancel_payout(request: HttpRequest, payout_id: FromPath[str]) -> ASGIResponse:
        return await move(request, payout_id, "cancel")

    @post(
        "/{payout_id:str}/reinitiate", operation_id="reinitiate_payout",
        opt={"operation": _moving("Retry a failed payout", "INSUFFICIENT_BALANCE")}, status_code=200,
    )  # fmt: skip
    async def reinitiate_payout(request: HttpRequest, payout_id: FromPath[str]) -> ASGIResponse:
        return await move(request, payout_id, "reinitiate")

    @patch(
        "/{payout_id:str}/approve", operation_id="approve_payout",
        opt={"operation": _moving("Approve a payout", admin=True)},
    )  # fmt: skip
    async def approve_payout(request: HttpRequest, payout_id: FromPath[str]) -> ASGIResponse:
        return await move(request, payout_id, "approve")

    @patch(
        "/{payout_id:str}/reject", operation_id="reject_payout",
        opt={"operation": _moving("Reject a payout", admin=True)},
    )  # fmt: skip
    async def reject_payout(request: HttpRequest, payout_id: FromPath[str]) -> ASGIResponse:
        return await move(request, payout_id, "reject")

    return Router(
        "/api/v1/payouts",
        route_handlers=[
            create_payout, create_payouts, list_payouts, get_payout, get_payout_timeline, cancel_payout,
            reinitiate_payout, approve_payout, reject_payout,
        ],
    )  # fmt: skip
