"""Reset a merchant's world, take snapshots of it and restore them. Each is one transaction and affects no other merchant."""

from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec

from sandbox.domain.clock import Clock, render, truncate
from sandbox.domain.errors import Problem
from sandbox.domain.fields import EmptyBody, Name, Uuid, about
from sandbox.domain.shown import shown
from sandbox.domain.unit import CommandResult, Effect, RequestContext, UnitOfWork
from sandbox.http.operation import PAGE, delete, either, get, post
from sandbox.http.paging import Page, PageWindow, page
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.payouts.balance.service import Balance, read_balance
from sandbox.unit_of_work.in_flight import in_flight
from sandbox.unit_of_work.runner import Action, UnitOfWorkRunner
from sandbox.worlds.clock.lease import clock_lease
from sandbox.worlds.merchants.keys import new_id
from sandbox.worlds.merchants.service import open_world
from sandbox.worlds.snapshots.store import MAX_SNAPSHOT_ROWS, count_rows, empty_world, restore_world, take_snapshot

MAX_SNAPSHOTS: Final = 20


class Reset(msgspec.Struct):
    """A merchant after a reset."""

    reset: bool
    balance: Balance


class Snapshot(msgspec.Struct):
    """A snapshot: `rows` in all tables, `size` in bytes before compression, `clock_at` the merchant's time at the snapshot."""

    id: str
    name: str
    created_at: str
    clock_at: str
    rows: int
    size: int


class Restored(msgspec.Struct):
    """A restored snapshot, and the merchant's clock after the restore."""

    restored: bool
    id: str
    name: str
    rows: int
    now: str
    frozen: bool


_SQL: Final = read_statements(__name__)


class TakeSnapshotBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /snapshots`."""

    name: Annotated[Name, about("The snapshot's name.")] = "snapshot"


_LINKS: Final = {
    "get": ("get_snapshot", "snapshot_id"),
    "restore": ("restore_snapshot", "snapshot_id"),
    "delete": ("delete_snapshot", "snapshot_id"),
}


class WorldService:
    """Resets, snapshots and restores worlds."""

    def __init__(self, work: UnitOfWorkRunner) -> None:
        self._work = work

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
    async def reset(self, context: RequestContext) -> CommandResult:
        """Reset the world. Responds with 200 and Reset. Raises INVALID_STATE if another request is moving the clock."""

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            seed, opening_balance = await empty_world(conn, context.merchant_id)
            opened = await open_world(conn, unit.catalogue, context.merchant_id, seed, opening_balance)
            _use_clock(unit, opened.clock)
            unit.effects.add(Effect.WORLD_RESET)
            return CommandResult(200, msgspec.json.encode(Reset(True, await read_balance(conn, context.merchant_id))))

        return await self._replace_world(context, action)

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
    async def take_snapshot(self, context: RequestContext, body: TakeSnapshotBody) -> CommandResult:
        """Take a snapshot of the world. Responds with 201 and the Snapshot.

        The result is INVALID_STATE if the merchant has MAX_SNAPSHOTS snapshots or more than MAX_SNAPSHOT_ROWS rows.
        """

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            if await conn.fetchval(_SQL["count"], context.merchant_id) >= MAX_SNAPSHOTS:
                raise Problem("INVALID_STATE", f"A merchant has at most {MAX_SNAPSHOTS} snapshots; delete one first.")
            if await count_rows(conn, context.merchant_id) > MAX_SNAPSHOT_ROWS:
                raise Problem("INVALID_STATE", f"A snapshot has at most {MAX_SNAPSHOT_ROWS} rows; this merchant has more.")
            wall_now = truncate(datetime.now(UTC))
            # A snapshot's id uses the host's time. It is not part of the world, whose time and ids can go back.
            record = await take_snapshot(
                conn, context.merchant_id, new_id(wall_now), body.name, unit.now, wall_now, unit.ids.next()
            )
            snapshot = shown(Snapshot, record)
            return CommandResult(201, msgspec.json.encode(snapshot), f"/sandbox/v1/snapshots/{snapshot.id}")

        return await self._work.run(context, action, weight=0)

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
    async def restore_snapshot(self, context: RequestContext, snapshot_id: Uuid) -> CommandResult:
        """Restore the world from a snapshot. Responds with 200 and Restored.

        The result is NOT_FOUND for an unknown snapshot. Raises INVALID_STATE if another request is moving the clock.
        """

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            restored = await restore_world(conn, context.merchant_id, snapshot_id)
            if restored is None:
                raise _not_found()
            _use_clock(unit, restored.clock)
            unit.effects.add(Effect.WORLD_RESTORED)
            is_frozen = restored.clock.frozen_at is not None
            result = Restored(True, snapshot_id, restored.name, restored.rows, render(unit.now), is_frozen)
            return CommandResult(200, msgspec.json.encode(result))

        return await self._replace_world(context, action)

    @get(
        "/sandbox/v1/snapshots",
        "List snapshots, newest first",
        {200: list[Snapshot]},
        query=PAGE,
        psp="snapshots list",
        columns="name id clock_at rows",
    )
    async def list_snapshots(self, merchant_id: str, window: PageWindow) -> Page:
        """Return a page of snapshots, newest first."""
        async with connection(merchant_id) as conn:
            records = await conn.fetch(_SQL["list"], merchant_id, window.before, window.since, window.limit + 1)
        found = [shown(Snapshot, record) for record in records]
        return page(found, window.limit, [snapshot.id for snapshot in found])

    @get("/sandbox/v1/snapshots/{snapshot_id}", "Get a snapshot", {200: Snapshot}, psp="snapshots get")
    async def get_snapshot(self, merchant_id: str, snapshot_id: Uuid) -> Snapshot:
        """Return a snapshot. Raises NOT_FOUND."""
        async with connection(merchant_id) as conn:
            record = await conn.fetchrow(_SQL["get"], merchant_id, snapshot_id)
        if record is None:
            raise _not_found()
        return shown(Snapshot, record)

    @delete("/sandbox/v1/snapshots/{snapshot_id}", "Delete a snapshot", {204: None}, takes_turns=True, psp="snapshots delete")
    async def delete_snapshot(self, context: RequestContext, snapshot_id: Uuid) -> CommandResult:
        """Delete a snapshot. Responds with 204. The result is NOT_FOUND for an unknown snapshot."""

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            if not await conn.fetchval(_SQL["delete"], context.merchant_id, snapshot_id):
                raise _not_found()
            return CommandResult(204, b"")

        return await self._work.run(context, action)

    async def _replace_world(self, context: RequestContext, action: Action) -> CommandResult:
        # Without the clock lease, an advance in progress would continue in the new world to a target of the old one.
        with in_flight(context.merchant_id, context.key):
            async with clock_lease(context.merchant_id):
                replaced = self._work.run_with_reserved_key(context, action, as_database_owner=True)
                return await self._work.run_to_completion(replaced)


def _use_clock(unit: UnitOfWork, clock: Clock) -> None:
    """Continue the unit of work at the new clock's time, so that its idempotency key expires by that clock."""
    unit.now = clock.now(datetime.now(UTC))


def _not_found() -> Problem:
    return Problem("NOT_FOUND", "Snapshot not found; GET /sandbox/v1/snapshots lists them.")
