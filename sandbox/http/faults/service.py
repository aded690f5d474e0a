"""Create, list and delete a merchant's faults."""

from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from piccolo.query.methods.count import Count
from piccolo.query.methods.delete import Delete
from piccolo.query.methods.select import First, Select

from sandbox.domain.errors import Problem
from sandbox.domain.fields import Uuid
from sandbox.domain.shown import shown
from sandbox.domain.unit import CommandResult, Effect, RequestContext, UnitOfWork
from sandbox.http.faults.requests import MAX_FAULTS, FaultBody, kind_of, match_of, parameters_of
from sandbox.http.faults.tables import Faults
from sandbox.http.operation import PAGE, delete, get, post
from sandbox.http.paging import Page, PageWindow, page
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection
from sandbox.unit_of_work.runner import UnitOfWorkRunner


class FaultShown(msgspec.Struct):
    """A fault. `remaining` is the number of hits left (null: unlimited); `matches` counts all matches, hits or not.

    The first `skip` matches are not hit.
    """

    id: str
    target: str
    kind: str
    match: dict[str, str]
    parameters: dict[str, float | str]
    probability: float
    count: int | None
    skip: int
    seed: int | None
    matches: int
    hits: int
    remaining: int | None
    expires_at: str | None
    created_at: str


_LINKS: Final = {"get": ("get_fault", "fault_id"), "delete": ("delete_fault", "fault_id")}


class FaultService:
    """Creates, reads and deletes faults."""

    def __init__(self, work: UnitOfWorkRunner) -> None:
        self._work = work

    @post(
        "/sandbox/v1/faults",
        "Create a fault",
        {201: FaultShown},
        FaultBody,
        errors=("INVALID_STATE",),
        links=_LINKS,
        example={"target": "api", "kind": "error", "status": 503, "match": {"path": "/api/v1/payouts*"}, "count": 1},
        description="A fault hits the API (`/api/v1`, `/vendor`, `/aggregator`; never `/sandbox`) or webhook deliveries. "
        "Only the first fault that matches and hits takes effect. `count` is the exact number of hits, after `skip` matches "
        "that pass; `ttl_seconds` is in the merchant's time, and the same `seed` gives the same hits. Faults never corrupt the "
        "ledger. At most 50 per merchant.",
        psp="faults add {target} {kind} --set {*:set} --method {match.method} --path {match.path} --reference "
        "{match.reference} --key {match.api_key_id} --event-type {match.event_type} --endpoint {match.endpoint_id} match?={} "
        "--probability {probability:number} --count {count:integer} --skip {skip:integer} --ttl {ttl_seconds:number} --seed "
        "{seed:integer}",
    )
    async def create_fault(self, context: RequestContext, body: FaultBody) -> CommandResult:
        """Create a fault. Responds with 201 and the fault.

        A webhook fault takes effect immediately, an API fault within a second in other processes. Raises VALIDATION_ERROR. If
        the merchant already has MAX_FAULTS faults, the result is INVALID_STATE.
        """
        match = match_of(body)

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            if await _count(context.merchant_id) >= MAX_FAULTS:
                # Make room: delete faults that cannot hit any more.
                await _delete_spent(context.merchant_id, unit.now)
                if await _count(context.merchant_id) >= MAX_FAULTS:
                    raise Problem("INVALID_STATE", f"A merchant has at most {MAX_FAULTS} faults; delete one first.")
            row = Faults(
                merchant_id=context.merchant_id,
                id=unit.ids.next(),
                target=body.target,
                kind=kind_of(body),
                match=msgspec.json.encode(match).decode(),
                parameters=msgspec.json.encode(parameters_of(body)).decode(),
                probability=body.probability,
                max_hits=None if body.count is None else int(body.count),
                skip=int(body.skip),
                seed=None if body.seed is None else int(body.seed),
                matches=0,
                hits=0,
                expires_at=_expires_at(unit.now, body.ttl_seconds),
                created_at=unit.now,
            )
            (record,) = await Faults.insert(row).returning(*Faults.all_columns())
            unit.effects.add(Effect.REQUEST_POLICY_CHANGED)
            fault = _to_fault(record)
            return CommandResult(201, msgspec.json.encode(fault), f"/sandbox/v1/faults/{fault.id}")

        return await self._work.run(context, action)

    @get("/sandbox/v1/faults", "List faults, newest first", {200: list[FaultShown]}, query=PAGE, psp="faults list")
    async def list_faults(self, merchant_id: str, window: PageWindow) -> Page:
        """Return a page of faults, newest first, including spent and expired ones."""
        async with connection(merchant_id):
            records = await _page(merchant_id, window.before, window.since, window.limit + 1)
        found = [_to_fault(record) for record in records]
        return page(found, window.limit, [fault.id for fault in found])

    @get("/sandbox/v1/faults/{fault_id}", "Get a fault", {200: FaultShown}, psp="faults get")
    async def get_fault(self, merchant_id: str, fault_id: Uuid) -> FaultShown:
        """Return a fault. Raises NOT_FOUND."""
        async with connection(merchant_id):
            record = await _select_one(merchant_id, fault_id)
        if record is None:
            raise _not_found()
        return _to_fault(record)

    @delete("/sandbox/v1/faults/{fault_id}", "Delete a fault", {204: None}, psp="faults delete")
    async def delete_fault(self, context: RequestContext, fault_id: Uuid) -> CommandResult:
        """Delete a fault, with immediate effect in every process. Responds with 204. NOT_FOUND is the command's result."""

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            if not await _delete(context.merchant_id, fault_id):
                raise _not_found()
            unit.effects.add(Effect.REQUEST_POLICY_CHANGED)
            return CommandResult(204, b"")

        return await self._work.run(context, action)


def _page(merchant_id: str, before: str, since: str, limit: int) -> Select[Faults]:
    found = Faults.select().where(Faults.merchant_id == merchant_id, Faults.id < before, Faults.id >= since)
    return found.order_by(Faults.id, ascending=False).limit(limit)


def _select_one(merchant_id: str, fault_id: str) -> First:
    return Faults.select().where(Faults.merchant_id == merchant_id, Faults.id == fault_id).first()


def _count(merchant_id: str) -> Count:
    return Faults.count().where(Faults.merchant_id == merchant_id)


def _delete(merchant_id: str, fault_id: str) -> Delete:
    return Faults.delete().where(Faults.merchant_id == merchant_id, Faults.id == fault_id).returning(Faults.id)


def _delete_spent(merchant_id: str, now: datetime) -> Delete:
    spent = (Faults.hits >= Faults.max_hits) | (Faults.expires_at <= now)
    return Faults.delete().where(Faults.merchant_id == merchant_id, spent)


def _expires_at(now: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else now + timedelta(seconds=seconds)


def _not_found() -> Problem:
    return Problem("NOT_FOUND", "Fault not found; GET /sandbox/v1/faults lists them.")


def _to_fault(record: Any) -> FaultShown:
    count, hits = record["count"], record["hits"]
    return shown(
        FaultShown,
        record,
        match=msgspec.json.decode(record["match"]),
        parameters=msgspec.json.decode(record["parameters"]),
        remaining=None if count is None else count - hits,
    )
