"""`/sandbox/v1/reset` and `/sandbox/v1/snapshots`: parse, call the service, render."""

from typing import Final

import msgspec
from litestar import Router, delete, get, post
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from sandbox.domain.fields import EmptyBody, Name
from sandbox.http.answers import answered, ok
from sandbox.http.guard import HttpRequest, RequestGuard
from sandbox.http.operation import CURSOR, LIMIT, Operation
from sandbox.http.paging import query, window
from sandbox.worlds.service import Reset, Restored, Snapshot, WorldService


class TakeSnapshotBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /snapshots`."""

    name: Name = "snapshot"


_RESET: Final = Operation(
    "Reset the merchant to its initial state", {200: Reset}, EmptyBody, errors=("INVALID_STATE",), idempotency="optional",
    description="Affects this merchant only, in one transaction. Payouts, users, sales, bulk credits, the ledger, "
    "events, deliveries, idempotency keys, scenarios of your own, faults, aggregated data and the journal are deleted. "
    "The balance is the opening balance, the clock runs with the host's, and ids start over, so with a seed the same "
    "calls give the same ids again. API keys, webhook endpoints, the rate limit and snapshots are kept.",
)  # fmt: skip
_SEE: Final = {
    "get": ("get_snapshot", "snapshot_id"),
    "restore": ("restore_snapshot", "snapshot_id"),
    "delete": ("delete_snapshot", "snapshot_id"),
}
_TAKE: Final = Operation(
    "Take a snapshot of the merchant's state", {201: Snapshot}, TakeSnapshotBody, optional_body=True, errors=("INVALID_STATE",),
    idempotency="optional", links=_SEE, example={"name": "before the refunds"},
    description="It holds everything that a reset deletes, and also webhook endpoints, the clock and the ids. At most "
    "20 per merchant, of 100,000 rows each.",
)  # fmt: skip
_RESTORE: Final = Operation(
    "Restore a snapshot", {200: Restored}, EmptyBody, errors=("NOT_FOUND", "INVALID_STATE"), idempotency="optional",
    description="Affects this merchant only, in one transaction, and can be repeated. A frozen clock stands where it "
    "stood; a running clock has its offset from the host's clock again. Webhooks that were still undelivered then are "
    "delivered now.",
)  # fmt: skip


def worlds_router(gate: RequestGuard, service: WorldService) -> Router:
    """The routes of worlds."""
    empty_body = msgspec.json.Decoder(EmptyBody)
    take_body = msgspec.json.Decoder(TakeSnapshotBody)

    @post("/reset", operation_id="reset", opt={"operation": _RESET}, status_code=200)
    async def reset(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        _, key = await gate.parse(request, empty_body, key_required=False, body_required=False)
        return answered(await service.reset(gate.context(request, key)))

    @post("/snapshots", operation_id="take_snapshot", opt={"operation": _TAKE})
    async def take_snapshot(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await gate.parse(request, take_body, key_required=False, body_required=False)
        return answered(await service.take(gate.context(request, key), parsed.name))

    @get(
        "/snapshots", operation_id="list_snapshots",
        opt={"operation": Operation("List snapshots, newest first", {200: list[Snapshot]}, query=(LIMIT, CURSOR))},
    )  # fmt: skip
    async def list_snapshots(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        return ok(await service.list(caller.merchant_id, window(query(request, ("limit", "cursor")))))

    @get(
        "/snapshots/{snapshot_id:str}", operation_id="get_snapshot",
        opt={"operation": Operation("Get a snapshot", {200: Snapshot}, errors=("NOT_FOUND",))},
    )  # fmt: skip
    async def get_snapshot(request: HttpRequest, snapshot_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.get(caller.merchant_id, snapshot_id))

    @post(
        "/snapshots/{snapshot_id:str}/restore", operation_id="restore_snapshot", opt={"operation": _RESTORE}, status_code=200
    )  # fmt: skip
    async def restore_snapshot(request: HttpRequest, snapshot_id: FromPath[str]) -> ASGIResponse:
        await gate.caller(request)
        _, key = await gate.parse(request, empty_body, key_required=False, body_required=False)
        return answered(await service.restore(gate.context(request, key), snapshot_id))

    @delete(
        "/snapshots/{snapshot_id:str}", operation_id="delete_snapshot", status_code=200,
        opt={"operation": Operation("Delete a snapshot", {204: None}, errors=("NOT_FOUND",), idempotency="optional")},
    )  # fmt: skip
    async def delete_snapshot(request: HttpRequest, snapshot_id: FromPath[str]) -> ASGIResponse:
        await gate.caller(request)
        key = await gate.optional_key(request)
        return answered(await service.delete(gate.context(request, key), snapshot_id))

    handlers = [reset, take_snapshot, list_snapshots, get_snapshot, restore_snapshot, delete_snapshot]
    return Router("/sandbox/v1", route_handlers=handlers)
