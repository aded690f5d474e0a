"""`/sandbox/v1/reset` and `/sandbox/v1/snapshots`: parse, call the service, render."""

from typing import Annotated, Final

import msgspec

from sandbox.domain.fields import EmptyBody, Name, Uuid, about
from sandbox.domain.unit import CommandResult
from sandbox.http.operation import PAGE, delete, either, get, post
from sandbox.http.paging import Page, window
from sandbox.http.request import Request
from sandbox.worlds.service import Reset, Restored, Snapshot, WorldService


class TakeSnapshotBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /snapshots`."""

    name: Annotated[Name, about("The snapshot's name.")] = "snapshot"


_LINKS: Final = {
    "get": ("get_snapshot", "snapshot_id"),
    "restore": ("restore_snapshot", "snapshot_id"),
    "delete": ("delete_snapshot", "snapshot_id"),
}


class WorldApi:
    """The operations on a merchant's entire state."""

    def __init__(self, worlds: WorldService) -> None:
        self._worlds = worlds

    @post(
        "/sandbox/v1/reset",
        "Reset the merchant to its initial state",
        {200: Reset},
        EmptyBody,
        errors=("INVALID_STATE",),
        takes_turns=True,
        description="Affects this merchant only, in one transaction. Payouts, users, sales, bulk credits, the ledger, "
        "events, deliveries, idempotency keys, scenarios of your own, faults, aggregated data and the journal are deleted. "
        "The balance is the opening balance again. The clock shows the host's time, or is frozen if the merchant was created "
        "with `frozen_at`. Ids start over, so with a seed the same calls give the same ids again. API keys, webhook endpoints, "
        "the rate limit and snapshots are kept.",
        psp="reset",
    )
    async def reset(self, request: Request) -> CommandResult:
        return await self._worlds.reset(request.context)

    @post(
        "/sandbox/v1/snapshots",
        "Take a snapshot of the merchant's state",
        {201: Snapshot},
        TakeSnapshotBody,
        errors=("INVALID_STATE",),
        takes_turns=True,
        links=_LINKS,
        example={"name": "before the refunds"},
        description="A snapshot contains everything that a reset deletes, and also webhook endpoints, the clock and the id "
        "counter. At most 20 per merchant, of 100,000 rows each.",
        psp=either("snapshots create", "{name}", ""),
    )
    async def take_snapshot(self, request: Request, body: TakeSnapshotBody) -> CommandResult:
        return await self._worlds.take(request.context, body.name)

    @get(
        "/sandbox/v1/snapshots",
        "List snapshots, newest first",
        {200: list[Snapshot]},
        query=PAGE,
        psp="snapshots list",
        columns="name id clock_at rows",
    )
    async def list_snapshots(self, request: Request) -> Page:
        return await self._worlds.list(request.merchant_id, window(request.query))

    @get("/sandbox/v1/snapshots/{snapshot_id}", "Get a snapshot", {200: Snapshot}, psp="snapshots get")
    async def get_snapshot(self, request: Request, snapshot_id: Uuid) -> Snapshot:
        return await self._worlds.get(request.merchant_id, snapshot_id)

    @post(
        "/sandbox/v1/snapshots/{snapshot_id}/restore",
        "Restore a snapshot",
        {200: Restored},
        EmptyBody,
        errors=("INVALID_STATE",),
        takes_turns=True,
        description="Affects this merchant only, in one transaction, and can be repeated. A frozen clock returns to its time; "
        "a running clock gets back its offset from the host's clock. Webhooks that were undelivered at the snapshot are "
        "delivered now.",
        psp="snapshots restore",
    )
    async def restore_snapshot(self, request: Request, snapshot_id: Uuid) -> CommandResult:
        return await self._worlds.restore(request.context, snapshot_id)

    @delete("/sandbox/v1/snapshots/{snapshot_id}", "Delete a snapshot", {204: None}, takes_turns=True, psp="snapshots delete")
    async def delete_snapshot(self, request: Request, snapshot_id: Uuid) -> CommandResult:
        return await self._worlds.delete(request.context, snapshot_id)
