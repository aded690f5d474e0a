"""`/api/v1/sales`, the runs that pay them, and their reconciliation: parse, call the service, render."""

from typing import Final

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from sandbox.domain.body import amount_of
from sandbox.domain.fields import EmptyBody
from sandbox.domain.sale import ADVANCE, FINAL, STATUSES, RunResult, Sale
from sandbox.http.answers import answered, ok
from sandbox.http.guard import HttpRequest, RequestGuard
from sandbox.http.operation import CREATED_FROM, CREATED_TO, CURSOR, LIMIT, Operation, parameter
from sandbox.http.paging import choice, query, uuid_param, window
from sandbox.sales.requests import CreateSaleBody, ReconcileBody
from sandbox.sales.service import Reconciled, SalesService

_ID: Final = "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77"
_CREATE: Final = Operation(
    "Record a sale", {201: Sale}, CreateSaleBody, errors=("NOT_FOUND",), idempotency="required",
    links={"get": ("get_sale", "sale_id")},
    example={"user_id": _ID, "brand": "Khaadi", "earning": "40.00"},
)  # fmt: skip
_LIST: Final = Operation(
    "List sales, newest first", {200: list[Sale]},
    query=(
        LIMIT, CURSOR,
        parameter("status", "Only sales in this state.", type="string", enum=list(STATUSES)),
        parameter("user_id", "Only sales of this user.", type="string", format="uuid"),
        CREATED_FROM, CREATED_TO,
    ),
)  # fmt: skip
_RECONCILE: Final = Operation(
    "Approve or decline sales, all or none", {200: Reconciled}, ReconcileBody, errors=("NOT_FOUND", "ALREADY_RECONCILED"),
    idempotency="required", security="admin-key", example=[{"sale_id": _ID, "status": "APPROVED"}],
)  # fmt: skip


def _run(summary: str, minute: str) -> Operation:
    return Operation(
        summary, {200: RunResult}, EmptyBody, idempotency="required",
        description="Each sale is paid exactly once, however often this runs. An attempt fails if the user's "
        "destination ends in 0003, or if a scenario of your own matches (by destination, amount, user_id, or the "
        "metadata `kind` (ADVANCE, FINAL), `sale_id` and `brand`) and ends in FAILED, CANCELLED or RETURNED. A failed "
        "attempt moves no money, counts in the sale's `attempts`, sets its `last_error`, and is retried by the next "
        f"run. Also runs automatically at {minute} of each hour of the host's time, for every merchant whose clock is not "
        "frozen. In a frozen world, only these calls pay for sales.",
    )  # fmt: skip


def sales_routers(gate: RequestGuard, service: SalesService) -> list[Router]:
    """The routes of sales."""
    sale_body = msgspec.json.Decoder(CreateSaleBody)
    reconcile_body: msgspec.json.Decoder[ReconcileBody] = msgspec.json.Decoder(ReconcileBody)
    empty_body = msgspec.json.Decoder(EmptyBody)

    @post("/", operation_id="create_sale", opt={"operation": _CREATE})
    async def create_sale(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await gate.parse(request, sale_body)
        earning = amount_of(parsed.earning, "earning")
        return answered(await service.create(gate.context(request, key), parsed, earning))

    @get("/", operation_id="list_sales", opt={"operation": _LIST})
    async def list_sales(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        params = query(request, ("limit", "cursor", "status", "user_id", "created_from", "created_to"))
        statuses, user_id = choice(params, "status", STATUSES), uuid_param(params, "user_id")
        return ok(await service.list(caller.merchant_id, window(params), statuses, user_id))

    @get(
        "/{sale_id:str}", operation_id="get_sale",
        opt={"operation": Operation("Get a sale", {200: Sale}, errors=("NOT_FOUND",))},
    )  # fmt: skip
    async def get_sale(request: HttpRequest, sale_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.get(caller.merchant_id, sale_id))

    @post("/", operation_id="reconcile_sales", status_code=200, opt={"operation": _RECONCILE})
    async def reconcile_sales(request: HttpRequest) -> ASGIResponse:
        await gate.admin(request)
        parsed, key = await gate.parse(request, reconcile_body)
        return answered(await service.reconcile(gate.context(request, key), parsed))

    async def run(request: HttpRequest, kind: str) -> ASGIResponse:
        await gate.caller(request)
        _, key = await gate.parse(request, empty_body, body_required=False)
        return answered(await service.run(gate.context(request, key), kind))

    @post("/advance/run", operation_id="run_advances", status_code=200, opt={"operation": _run("Pay advances", ":00")})
    async def run_advances(request: HttpRequest) -> ASGIResponse:
        return await run(request, ADVANCE)

    @post("/final/run", operation_id="run_finals", status_code=200, opt={"operation": _run("Settle reconciled sales", ":30")})
    async def run_finals(request: HttpRequest) -> ASGIResponse:
        return await run(request, FINAL)

    return [
        Router("/api/v1/sales", route_handlers=[create_sale, list_sales, get_sale]),
        Router("/api/v1/reconcile", route_handlers=[reconcile_sales]),
        Router("/api/v1/payouts", route_handlers=[run_advances, run_finals]),
    ]
