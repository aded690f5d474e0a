"""A merchant's faults: make, list and delete them."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.db.engine import connection, db_errors_as_503
from sandbox.domain.clock import render
from sandbox.domain.errors import Problem
from sandbox.domain.ids import is_uuid
from sandbox.domain.unit import CommandResult, IdempotencyKey, RequestContext, UnitOfWork
from sandbox.faults.requests import LARGEST_COUNT, FaultBody, kind_of, match_of, parameters_of
from sandbox.http.paging import Page, Window, page
from sandbox.unit_of_work.keyed import run_keyed

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_COLUMNS: Final = (
    "id::text AS id, target, kind, match::text AS match, parameters::text AS parameters, probability, count, seed, matches, "
    "hits, expires_at, created_at"
)
_INSERT: Final = f"""
INSERT INTO faults (merchant_id, id, target, kind, match, parameters, probability, count, seed, matches, hits, expires_at,
    created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, $10, $11) RETURNING {_COLUMNS}
"""  # noqa: S608 -- constants
_LIST: Final = f"""
SELECT {_COLUMNS} FROM faults f WHERE merchant_id = $1 AND f.id < $2 AND f.id >= $3
ORDER BY merchant_id DESC, f.id DESC LIMIT $4
"""  # noqa: S608 -- constants
_DONE: Final = "DELETE FROM faults WHERE merchant_id = $1 AND (hits >= count OR expires_at <= $2)"


class FaultShown(msgspec.Struct):
    """A fault. `remaining` is how many hits are left (null: unlimited), `matches` how often it matched, hit or not."""

    id: str
    target: str
    kind: str
    match: dict[str, str]
    parameters: dict[str, float]
    probability: float
    count: int | None
    seed: int | None
    matches: int
    hits: int
    remaining: int | None
    expires_at: str | None
    created_at: str


class FaultService:
    """What the API offers of faults. `changed` is told of a merchant whose faults are others now."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed

    async def create(
        self, merchant_id: str, body: FaultBody, key: IdempotencyKey | None, origin: RequestContext
    ) -> CommandResult:
        """Make a fault: 201 with it. One of deliveries works at once, one of the API elsewhere within a second.

        Raises VALIDATION_ERROR; one fault too many is a conflict.
        """
        match = match_of(body)

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            if await _count(conn, merchant_id) >= LARGEST_COUNT:
                # Those that can hit no more make room.
                await conn.execute(_DONE, merchant_id, unit.now)
                if await _count(conn, merchant_id) >= LARGEST_COUNT:
                    raise Problem("INVALID_STATE", f"A merchant has at most {LARGEST_COUNT} faults; delete one first.")
            record = await conn.fetchrow(
                _INSERT,
                merchant_id,
                unit.ids.next(),
                body.target,
                kind_of(body),
                msgspec.json.encode(match).decode(),
                msgspec.json.encode(parameters_of(body)).decode(),
                body.probability,
                None if body.count is None else int(body.count),
                None if body.seed is None else int(body.seed),
                _lapse(unit.now, body.ttl_seconds),
                unit.now,
            )
            assert record is not None
            made = _shown(record)
            return CommandResult(201, msgspec.json.encode(made), f"/sandbox/v1/faults/{made.id}")

        answer = await run_keyed(merchant_id, key, origin, action)
        self._changed(merchant_id)
        return answer

    async def list(self, merchant_id: str, window: Window) -> Page:
        """A page of faults, newest first, spent and lapsed ones too."""
        async with db_errors_as_503(), connection() as conn:
            records = await conn.fetch(_LIST, merchant_id, window.before, window.since, window.limit + 1)
        found = [_shown(record) for record in records]
        return page(found, window.limit, [fault.id for fault in found])

    async def get(self, merchant_id: str, fault_id: str) -> FaultShown:
        """One fault. Raises NOT_FOUND."""
        record = None
        if is_uuid(fault_id):
            async with db_errors_as_503(), connection() as conn:
                record = await conn.fetchrow(
                    f"SELECT {_COLUMNS} FROM faults WHERE merchant_id = $1 AND id = $2",  # noqa: S608 -- constants
                    merchant_id,
                    fault_id,
                )
        if record is None:
            raise _no_fault()
        return _shown(record)

    async def delete(
        self, merchant_id: str, fault_id: str, key: IdempotencyKey | None, origin: RequestContext
    ) -> CommandResult:
        """Delete a fault, everywhere at once: 204."""

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            deleted = is_uuid(fault_id) and await conn.fetchval(
                "DELETE FROM faults WHERE merchant_id = $1 AND id = $2 RETURNING true", merchant_id, fault_id
            )
            if not deleted:
                raise _no_fault()
            return CommandResult(204, b"")

        answer = await run_keyed(merchant_id, key, origin, action)
        self._changed(merchant_id)
        return answer


async def _count(conn: "PoolConnectionProxy[Any]", merchant_id: str) -> int:
    found: int = await conn.fetchval("SELECT count(*) FROM faults WHERE merchant_id = $1", merchant_id)
    return found


def _lapse(now: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else now + timedelta(seconds=seconds)


def _no_fault() -> Problem:
    return Problem("NOT_FOUND", "There is no such fault; GET /sandbox/v1/faults lists them.")


def _shown(record: Any) -> FaultShown:
    count, hits = record["count"], record["hits"]
    return FaultShown(
        id=record["id"],
        target=record["target"],
        kind=record["kind"],
        match=msgspec.json.decode(record["match"]),
        parameters=msgspec.json.decode(record["parameters"]),
        probability=record["probability"],
        count=count,
        seed=record["seed"],
        matches=record["matches"],
        hits=hits,
        remaining=None if count is None else count - hits,
        expires_at=None if record["expires_at"] is None else render(record["expires_at"]),
        created_at=render(record["created_at"]),
    )
