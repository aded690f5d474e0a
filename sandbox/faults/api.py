"""`/sandbox/v1/faults`: parse, call the service, render."""

from typing import Final

from sandbox.domain.fields import Uuid
from sandbox.domain.unit import CommandResult
from sandbox.faults.requests import FaultBody
from sandbox.faults.service import FaultService, FaultShown
from sandbox.http.operation import CURSOR, LIMIT, delete, get, post
from sandbox.http.paging import Page, window
from sandbox.http.request import Request

_LINKS: Final = {"get": ("get_fault", "fault_id"), "delete": ("delete_fault", "fault_id")}


class FaultApi:
    """The operations of faults."""

    def __init__(self, faults: FaultService) -> None:
        self._faults = faults

    @get("/sandbox/v1/faults", "List faults, newest first", {200: list[FaultShown]}, query=(LIMIT, CURSOR))
    async def list_faults(self, request: Request) -> Page:
        return await self._faults.list(request.merchant_id, window(request.query))

    @get("/sandbox/v1/faults/{fault_id}", "Get a fault", {200: FaultShown}, errors=("NOT_FOUND",))
    async def get_fault(self, request: Request, fault_id: Uuid) -> FaultShown:
        return await self._faults.get(request.merchant_id, fault_id)

    @post(
        "/sandbox/v1/faults",
        "Create a fault",
        {201: FaultShown},
        FaultBody,
        errors=("INVALID_STATE",),
        idempotency="optional",
        links=_LINKS,
        example={"target": "api", "kind": "error", "status": 503, "match": {"path": "/api/v1/payouts*"}, "count": 1},
        description="A fault hits the API (`/api/v1`, `/vendor`, `/aggregator`; never `/sandbox`) or webhook deliveries. "
        "Only the first fault that matches and hits takes effect. `count` is the exact number of hits, after `skip` matches "
        "that pass; `ttl_seconds` is in the merchant's time, and the same `seed` gives the same hits. Faults never corrupt the "
        "ledger. At most 50 per merchant.",
    )
    async def create_fault(self, request: Request, body: FaultBody) -> CommandResult:
        return await self._faults.create(request.context, body)

    @delete("/sandbox/v1/faults/{fault_id}", "Delete a fault", {204: None}, errors=("NOT_FOUND",), idempotency="optional")
    async def delete_fault(self, request: Request, fault_id: Uuid) -> CommandResult:
        return await self._faults.delete(request.context, fault_id)
