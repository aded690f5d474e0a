"""`/sandbox/v1/faults`: parse, call the service, render."""

from typing import Any, Final

import msgspec
from litestar import Router, delete, get, post
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from sandbox.faults.requests import FaultBody
from sandbox.faults.service import FaultService, FaultShown
from sandbox.http.answers import answered, ok
from sandbox.http.guard import HttpRequest, RequestGuard
from sandbox.http.operation import CURSOR, LIMIT, Operation
from sandbox.http.paging import query, window

_SEE: Final = {"get": ("get_fault", "fault_id"), "delete": ("delete_fault", "fault_id")}
_CREATE: Final = Operation(
    "Create a fault", {201: FaultShown}, FaultBody, errors=("INVALID_STATE",), idempotency="optional", links=_SEE,
    example={"target": "api", "kind": "error", "status": 503, "match": {"path": "/api/v1/payouts*"}, "count": 1},
    description="A fault hits the API (`/api/v1`, `/vendor`, `/aggregator`; never `/sandbox`) or webhook deliveries. "
    "Only the first fault that matches and hits takes effect. `count` is the exact number of hits, `ttl_seconds` is in "
    "the merchant's time, and the same `seed` gives the same hits. Faults never corrupt the ledger. At most 50 per "
    "merchant.",
)  # fmt: skip


def faults_router(gate: RequestGuard, service: FaultService) -> Router:
    """The routes of faults."""
    fault_body: msgspec.json.Decoder[Any] = msgspec.json.Decoder(FaultBody)

    @get(
        "/", operation_id="list_faults",
        opt={"operation": Operation("List faults, newest first", {200: list[FaultShown]}, query=(LIMIT, CURSOR))},
    )  # fmt: skip
    async def list_faults(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        return ok(await service.list(caller.merchant_id, window(query(request, ("limit", "cursor")))))

    @get(
        "/{fault_id:str}", operation_id="get_fault",
        opt={"operation": Operation("Get a fault", {200: FaultShown}, errors=("NOT_FOUND",))},
    )  # fmt: skip
    async def get_fault(request: HttpRequest, fault_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.get(caller.merchant_id, fault_id))

    @post("/", operation_id="create_fault", opt={"operation": _CREATE})
    async def create_fault(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await gate.parse(request, fault_body, key_required=False)
        return answered(await service.create(gate.context(request, key), parsed))

    @delete(
        "/{fault_id:str}", operation_id="delete_fault", status_code=200,
        opt={"operation": Operation("Delete a fault", {204: None}, errors=("NOT_FOUND",), idempotency="optional")},
    )  # fmt: skip
    async def delete_fault(request: HttpRequest, fault_id: FromPath[str]) -> ASGIResponse:
        await gate.caller(request)
        key = await gate.optional_key(request)
        return answered(await service.delete(gate.context(request, key), fault_id))

    return Router("/sandbox/v1/faults", route_handlers=[list_faults, get_fault, create_fault, delete_fault])
