"""Recover what an endpoint missed: send its failed events again, or replay everything since a time."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from asyncpg import Record
from msgspec import UNSET

from sandbox.domain.clock import milliseconds, parse
from sandbox.domain.errors import Problem, invalid_fields
from sandbox.domain.event_filters import to_text
from sandbox.domain.events import includes
from sandbox.domain.fields import Uuid
from sandbox.domain.ids import first_id_at
from sandbox.domain.unit import CommandResult, Effect, RequestContext, UnitOfWork
from sandbox.http.operation import post
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.unit_of_work.claim import RESERVE_NO_IDS
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.webhooks.endpoints.requests import RecoverBody, recover_errors
from sandbox.webhooks.endpoints.rows import Endpoint, find_endpoint
from sandbox.webhooks.preview import IS_SAMPLE, obstacle_to

ROWS_PER_TRANSACTION: Final = 1000
"""Maximum number of deliveries or events that one transaction reads. A unit of work reserves more ids than that."""

_FAILED_STATUSES: Final = ("FAILED", "PAUSED", "PENDING")
"""The states of `failed` deliveries, in the order of recovery. PENDING ones count only if they wait for a retry."""

_SQL: Final = read_statements(__name__, is_sample=IS_SAMPLE)


class Recovery(msgspec.Struct):
    """How many events are sent again, in all and by type."""

    count: int
    by_type: dict[str, int]


class _Progress(msgspec.Struct):
    """The checkpoint of a recovery. It commits with what it describes, so nothing is counted or queued twice."""

    started_at: datetime
    """In the merchant's time. Later events are not part of the recovery."""
    since: str
    """The first id of the period."""
    until: str
    """The first id after the period."""
    position: str
    """The last id that was read: of a delivery for `failed`, of an event for `all`."""
    phase: int = 0
    """For `failed`, the state whose deliveries are being read."""
    by_type: dict[str, int] = {}


class RecoveryService:
    """Sends an endpoint's events again."""

    def __init__(self, work: UnitOfWorkRunner) -> None:
        self._work = work

    @post(
        "/api/v1/webhook-endpoints/{endpoint_id}/recover",
        "Send an endpoint's events again",
        {200: Recovery},
        RecoverBody,
        takes_turns=True,
        errors=("INVALID_STATE",),
        check=recover_errors,
        example={"since": "2026-01-31T12:00:00Z", "which": "failed", "dry_run": True},
        description="`failed` sends events whose last attempt failed, even if a retry is scheduled, and events that were kept "
        "while the endpoint was disabled. `all` replays every event of the period, including those that the endpoint has "
        "received and those that it would have received if it had existed. Events whose first attempt is due, or that are "
        "being sent, are not counted. `since` is inclusive, `until` exclusive; both are in the merchant's time. Each webhook "
        "keeps its webhook-id, and its retry schedule starts over. A dry run only counts. 409 if the endpoint is disabled, "
        "except for a dry run. After an interruption, the same request with the same key continues where it stopped.",
        psp="endpoints recover --since! {since} --which! {which} --events {event_types:list}",
    )
    async def recover_webhook_endpoint(self, context: RequestContext, endpoint_id: Uuid, body: RecoverBody) -> CommandResult:
        """Make an endpoint's events of a period due now, in several transactions. Responds with 200 and a Recovery.

        If the process dies, a retry with the same key continues. Returns NOT_FOUND and, for a disabled endpoint unless it is a
        dry run, INVALID_STATE, both stored under the key. Raises VALIDATION_ERROR.
        """
        errors = recover_errors(msgspec.structs.asdict(body))
        if errors:
            raise invalid_fields(errors)

        async def action(conn: Connection, unit: UnitOfWork, checkpoint: bytes | None) -> CommandResult:
            endpoint = await find_endpoint(context.merchant_id, endpoint_id)
            if checkpoint is not None:
                progress = _decode(checkpoint)
            elif endpoint.status != "ENABLED" and not body.dry_run:
                raise Problem("INVALID_STATE", f"Endpoint {endpoint_id} is disabled; enable it before you recover its events.")
            else:
                progress = _begin(body, unit.now)
            part = _recover_failed if body.which == "failed" else _recover_all
            sent, is_done = await part(conn, unit, endpoint, body, progress)
            if sent and not body.dry_run:
                unit.effects.add(Effect.WORK_DUE)
            counts = Counter(progress.by_type)
            counts.update(sent)
            progress.by_type = dict(sorted(counts.items()))
            if not is_done:
                return CommandResult(202, msgspec.json.encode(progress), provisional=True)
            return CommandResult(200, msgspec.json.encode(Recovery(counts.total(), progress.by_type)))

        # Only missing deliveries need ids.
        weight = 1 if body.which == "all" and not body.dry_run else RESERVE_NO_IDS
        return await self._work.run_resumable(context, action, weight)


def _begin(body: RecoverBody, now: datetime) -> _Progress:
    since = first_id_at(milliseconds(parse(body.since)))
    until = first_id_at(milliseconds(now) + 1)
    if body.until is not UNSET:
        until = min(until, first_id_at(milliseconds(parse(body.until))))
    return _Progress(now, since, until, since)


async def _recover_failed(
    conn: Connection, unit: UnitOfWork, endpoint: Endpoint, body: RecoverBody, progress: _Progress
) -> tuple[Sequence[str], bool]:
    """Send the next failed deliveries. Return the types of their events, and whether all have been read.

    The period is that of the events, and a delivery is never older than its event.
    """
    wanted: dict[str, str] = {}
    room = ROWS_PER_TRANSACTION
    before = first_id_at(milliseconds(progress.started_at) + 1)
    while room and progress.phase < len(_FAILED_STATUSES):
        status = _FAILED_STATUSES[progress.phase]
        records = await conn.fetch(_SQL["failed"], unit.merchant_id, endpoint.id, status, progress.position, before, room)
        wanted |= {
            record["id"]: record["type"]
            for record in records
            if progress.since <= record["event_id"] < progress.until and _is_wanted(record, body)
        }
        if len(records) == room:
            progress.position = records[-1]["id"]
        else:
            progress.phase, progress.position = progress.phase + 1, progress.since
        room -= len(records)
    sent = await _send_again(conn, unit, wanted, body, progress)
    return [wanted[id_] for id_ in sent], progress.phase == len(_FAILED_STATUSES)


async def _recover_all(
    conn: Connection, unit: UnitOfWork, endpoint: Endpoint, body: RecoverBody, progress: _Progress
) -> tuple[Sequence[str], bool]:
    """Send the next events, whatever became of them before. Return their types, and whether all have been read.

    Events that the endpoint would receive now get a delivery if they have none, because the endpoint is newer, for example.
    """
    records = await conn.fetch(
        _SQL["events"], unit.merchant_id, endpoint.id, progress.position, progress.until, ROWS_PER_TRANSACTION
    )
    filters = to_text(endpoint.filters)
    again: dict[str, str] = {}
    missing: dict[str, str] = {}
    for record in records:
        if not _is_wanted(record, body):
            continue
        if record["may_be_sent"]:
            again[record["delivery_id"]] = record["type"]
        elif (
            record["delivery_id"] is None and obstacle_to(record["type"], record["body"], endpoint.event_types, filters) is None
        ):
            missing[record["id"]] = record["type"]
    if records:
        progress.position = records[-1]["id"]
    sent = await _send_again(conn, unit, again, body, progress)
    if missing and not body.dry_run:
        new_ids = [unit.ids.next() for _ in missing]
        await conn.execute(_SQL["create"], unit.merchant_id, endpoint.id, new_ids, list(missing), progress.started_at, unit.now)
    return [*(again[id_] for id_ in sent), *missing.values()], len(records) < ROWS_PER_TRANSACTION


async def _send_again(
    conn: Connection, unit: UnitOfWork, delivery_ids: "dict[str, str]", body: RecoverBody, progress: _Progress
) -> list[str]:
    """Make deliveries due. Return the ids of those that were not being sent already; in a dry run, all."""
    if body.dry_run or not delivery_ids:
        return list(delivery_ids)
    # Workers lock deliveries in the order of their ids too. Otherwise the two could deadlock.
    sent = await conn.fetch(_SQL["send_again"], unit.merchant_id, sorted(delivery_ids), progress.started_at, unit.now)
    return [record["id"] for record in sent]


def _is_wanted(record: Record, body: RecoverBody) -> bool:
    """Return whether the event has a selected type, is not a sample and is not being sent already (then its type is null)."""
    if record["type"] is None or record["is_sample"]:
        return False
    return body.event_types is UNSET or includes(body.event_types, record["type"])


_decode: Final = msgspec.json.Decoder(_Progress).decode
