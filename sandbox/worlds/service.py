"""A merchant's world as a whole: back to its beginning, put away, and put back. In each case it alone, all or nothing."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from piccolo.query.methods.count import Count
from piccolo.query.methods.delete import Delete
from piccolo.query.methods.select import First, Select

from sandbox.balance.service import Balance, read_balance
from sandbox.clock.lease import clock_lease
from sandbox.db.engine import db_errors_as_503
from sandbox.domain.clock import Clock, render, truncate
from sandbox.domain.errors import Problem
from sandbox.domain.ids import is_uuid
from sandbox.domain.unit import CommandResult, Effect, RequestContext, UnitOfWork
from sandbox.http.paging import Page, Window, page
from sandbox.merchants.service import new_id, open_world
from sandbox.unit_of_work.in_flight import in_flight
from sandbox.unit_of_work.runner import Action, UnitsOfWork
from sandbox.worlds.store import LARGEST_SNAPSHOT, count_rows, empty_world, put_back, take_snapshot
from sandbox.worlds.tables import Snapshots

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

LARGEST_COUNT: Final = 20


class Reset(msgspec.Struct):
    """A merchant after a reset."""

    reset: bool
    balance: Balance


class Snapshot(msgspec.Struct):
    """A snapshot: `rows` in all tables, `size` in bytes before compression, `clock_at` the merchant's time then."""

    id: str
    name: str
    created_at: str
    clock_at: str
    rows: int
    size: int


class Restored(msgspec.Struct):
    """A restored snapshot, and the clock as it is now."""

    restored: bool
    id: str
    name: str
    rows: int
    now: str
    frozen: bool


class WorldService:
    """What the API offers of worlds."""

    def __init__(self, work: UnitsOfWork) -> None:
        self._work = work

    async def reset(self, context: RequestContext) -> CommandResult:
        """Take the world back to its beginning: 200. INVALID_STATE while another moves its clock."""

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            seed, opening_balance = await empty_world(conn, context.merchant_id)
            begun = await open_world(conn, unit.catalogue, context.merchant_id, seed, opening_balance)
            _go_on_in(unit, begun.clock)
            unit.effects.add(Effect.WORLD_RESET)
            return CommandResult(200, msgspec.json.encode(Reset(True, await read_balance(conn, context.merchant_id))))

        return await self._exchange(context, action)

    async def take(self, context: RequestContext, name: str) -> CommandResult:
        """Put the world away: 201. INVALID_STATE for one snapshot too many, or a world with too many rows."""

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            if await _count(context.merchant_id) >= LARGEST_COUNT:
                raise Problem("INVALID_STATE", f"A merchant has at most {LARGEST_COUNT} snapshots; delete one first.")
            if await count_rows(conn, context.merchant_id) > LARGEST_SNAPSHOT:
                raise Problem("INVALID_STATE", f"A snapshot has at most {LARGEST_SNAPSHOT} rows, and this world has more.")
            real = truncate(datetime.now(UTC))
            # Its id is of the host's time and no part of the world, whose own ids and time may go back.
            record = await take_snapshot(conn, context.merchant_id, new_id(real), name, unit.now, real, unit.ids.next())
            taken = _shown(record)
            return CommandResult(201, msgspec.json.encode(taken), f"/sandbox/v1/snapshots/{taken.id}")

        async with db_errors_as_503():
            return await self._work.run(context, action, weight=0)

    async def restore(self, context: RequestContext, snapshot_id: str) -> CommandResult:
        """Make the world what it was: 200. NOT_FOUND, or INVALID_STATE while another moves its clock."""

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            found = await put_back(conn, context.merchant_id, snapshot_id) if is_uuid(snapshot_id) else None
            if found is None:
                raise _no_snapshot()
            _go_on_in(unit, found.clock)
            unit.effects.add(Effect.WORLD_RESTORED)
            frozen = found.clock.frozen_at is not None
            restored = Restored(True, snapshot_id, found.name, found.rows, render(unit.now), frozen)
            return CommandResult(200, msgspec.json.encode(restored))

        return await self._exchange(context, action)

    async def list(self, merchant_id: str, window: Window) -> Page:
        """A page of snapshots, newest first."""
        async with db_errors_as_503():
            records = await _page(merchant_id, window.before, window.since, window.limit + 1)
        found = [_shown(record) for record in records]
        return page(found, window.limit, [snapshot.id for snapshot in found])

    async def get(self, merchant_id: str, snapshot_id: str) -> Snapshot:
        """One snapshot. Raises NOT_FOUND."""
        record = None
        if is_uuid(snapshot_id):
            async with db_errors_as_503():
                record = await _one(merchant_id, snapshot_id)
        if record is None:
            raise _no_snapshot()
        return _shown(record)

    async def delete(self, context: RequestContext, snapshot_id: str) -> CommandResult:
        """Delete a snapshot: 204. NOT_FOUND is an answer."""

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            if not (is_uuid(snapshot_id) and await _delete(context.merchant_id, snapshot_id)):
                raise _no_snapshot()
            return CommandResult(204, b"")

        return await self._work.run(context, action)

    async def _exchange(self, context: RequestContext, action: Action) -> CommandResult:
        # The clock lease keeps an advance of the clock from continuing to its target in the world that replaces its own.
        with in_flight(context.merchant_id, context.key):
            async with db_errors_as_503(), clock_lease(context.merchant_id):
                return await self._work.finish(self._work.run_part(context, action))


def _page(merchant_id: str, before: str, since: str, limit: int) -> Select[Snapshots]:
    found = Snapshots.select().where(Snapshots.merchant_id == merchant_id, Snapshots.id < before, Snapshots.id >= since)
    return found.order_by(Snapshots.id, ascending=False).limit(limit)


def _one(merchant_id: str, snapshot_id: str) -> First:
    return Snapshots.select().where(Snapshots.merchant_id == merchant_id, Snapshots.id == snapshot_id).first()


def _count(merchant_id: str) -> Count:
    return Snapshots.count().where(Snapshots.merchant_id == merchant_id)


def _delete(merchant_id: str, snapshot_id: str) -> Delete:
    found = Snapshots.delete().where(Snapshots.merchant_id == merchant_id, Snapshots.id == snapshot_id)
    return found.returning(Snapshots.id)


def _go_on_in(unit: UnitOfWork, clock: Clock) -> None:
    """Let the key of a request that changed its merchant's clock lapse by the new time."""
    unit.now = clock.now(datetime.now(UTC))


def _no_snapshot() -> Problem:
    return Problem("NOT_FOUND", "There is no such snapshot; GET /sandbox/v1/snapshots lists them.")


def _shown(record: Any) -> Snapshot:
    return Snapshot(
        id=str(record["id"]),
        name=record["name"],
        created_at=render(record["created_at"]),
        clock_at=render(record["clock_at"]),
        rows=record["rows"],
        size=record["size"],
    )
