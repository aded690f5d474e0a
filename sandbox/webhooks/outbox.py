"""The store's side of delivering: claim what is due, and record what became of it."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from sandbox.db.engine import connection
from sandbox.db.rows import as_json
from sandbox.db.statements import read_statements
from sandbox.domain.clock import Clock
from sandbox.domain.fault import Fault, to_fault
from sandbox.unit_of_work.transaction import write_alone, write_rows

if TYPE_CHECKING:
    from asyncpg import Record
    from asyncpg.pool import PoolConnectionProxy

LEASE: Final = timedelta(seconds=30)
"""How long a claimed delivery is its claimer's. Twice an attempt's 15 s; after it another worker may try."""

IN_TURN: Final = 64
"""Deliveries of one endpoint that are claimed at once in a frozen world, to be posted one after the other."""

_SQL: Final = read_statements(__name__)
_CLOCK: Final = _SQL["clock"]
_LOCK: Final = _SQL["lock"]
_BUSY: Final = _SQL["busy"]
_CLAIM: Final = _SQL["claim"]
_GIVE_BACK: Final = _SQL["give_back"]
_RECORD: Final = _SQL["record"]
_DISABLE: Final = _SQL["disable"]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is ours until `lease`, with all that its HTTP call needs."""

    id: str
    event_id: str
    endpoint_id: str
    url: str
    sealed_secret: bytes
    retry_profile: str
    signing_time: str
    """Whose time the webhook-timestamp is: `host` or `merchant`."""
    scheduled: int
    """Turns of the retry profile that it has taken."""
    attempt: int
    """Which attempt this is, from 1; more than its turns, if it was sent again or put off."""
    event_type: str
    body: bytes
    request_id: str
    lease: datetime
    clock: Clock
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of one attempt, to be written. `next_attempt_at` and `at` are in the merchant's time."""

    claimed: Claimed
    scheduled: int
    status: str
    next_attempt_at: datetime | None
    at: datetime
    signature: str
    """Empty if nothing was sent."""
    signed_at: int | None
    """The webhook-timestamp as sent, in Unix seconds."""
    fault: Fault | None
    """The fault that hit the attempt."""
    http_status: int | None
    headers: Mapping[str, str]
    body: str
    error: str | None
    duration_ms: int
    gone: bool


async def claim_due(
    merchant_id: str, capacity: Mapping[str, int], capacity_of_others: int
) -> tuple[list[Claimed], frozenset[str]]:
    """Claim deliveries that are due now: at most `capacity[endpoint]` each, `capacity_of_others` where it does not say.

    In a frozen world, where they are posted one after the other, these bounds do not count; then endpoints that somebody is
    posting to at this moment are left alone, and returned beside the deliveries. Raises asyncpg's errors; then nothing is
    claimed.
    """
    async with connection() as conn:
        clock = await _clock(conn, _CLOCK, merchant_id)
    if clock is None:
        return [], frozenset()
    if clock.frozen_at is None:
        return await _claim(write_alone, merchant_id, clock, capacity, capacity_of_others), frozenset()

    async def claim_frozen(conn: "PoolConnectionProxy[Any]") -> tuple[list[Claimed], frozenset[str]]:
        # Two who claim at once would not see each other's leases; under the merchant's lock the second sees the first's.
        clock = await _clock(conn, _LOCK, merchant_id)
        return ([], frozenset()) if clock is None else await _claim_in_turn(conn, merchant_id, clock)

    return await write_rows(claim_frozen)


async def claim_in(conn: "PoolConnectionProxy[Any]", merchant_id: str, capacity_of_each: int) -> list[Claimed]:
    """As `claim_due`, in the caller's transaction, which holds the merchant's lock; they are claimed when it commits."""
    clock = await _clock(conn, _CLOCK, merchant_id)
    if clock is None:
        return []
    if clock.frozen_at is None:
        return await _claim(conn.fetch, merchant_id, clock, {}, capacity_of_each)
    claimed, _ = await _claim_in_turn(conn, merchant_id, clock)
    return claimed


async def _clock(conn: "PoolConnectionProxy[Any]", statement: str, merchant_id: str) -> Clock | None:
    record = await conn.fetchrow(statement, merchant_id)
    return None if record is None else Clock(record["clock_frozen_at"], record["clock_offset"])


async def _claim_in_turn(
    conn: "PoolConnectionProxy[Any]", merchant_id: str, clock: Clock
) -> tuple[list[Claimed], frozenset[str]]:
    """Claim from endpoints that nobody is posting to; the others are returned beside. The caller holds the merchant's lock."""
    real = datetime.now(UTC)
    busy = frozenset(record["id"] for record in await conn.fetch(_BUSY, merchant_id, clock.now(real), real))
    return await _claim(conn.fetch, merchant_id, clock, dict.fromkeys(busy, 0), IN_TURN), busy


async def _claim(
    fetch: "Callable[..., Awaitable[list[Record]]]",
    merchant_id: str,
    clock: Clock,
    capacity: Mapping[str, int],
    capacity_of_others: int,
) -> list[Claimed]:
    real = datetime.now(UTC)
    lease = real + LEASE
    records = await fetch(
        _CLAIM, merchant_id, clock.now(real), real, list(capacity), list(capacity.values()), capacity_of_others, lease
    )
    faults = tuple(to_fault(*fault) for fault in records[0]["faults"]) if records else ()
    return [
        Claimed(
            id=r["id"],
            event_id=r["event_id"],
            endpoint_id=r["endpoint_id"],
            url=r["url"],
            sealed_secret=r["secret"],
            retry_profile=r["retry_profile"],
            signing_time=r["signing_time"] or "host",
            scheduled=r["scheduled"],
            attempt=r["attempts"] + 1,
            event_type=r["type"],
            body=r["body"].encode(),
            request_id=r["request_id"],
            lease=lease,
            clock=clock,
            faults=faults,
        )
        for r in sorted(records, key=itemgetter("next_attempt_at", "id"))
    ]


async def give_back(merchant_id: str, claimed: Sequence[Claimed]) -> None:
    """Let others claim what was claimed, all of it together, and is not attempted after all. Raises asyncpg's errors."""
    await write_alone(_GIVE_BACK, merchant_id, [one.id for one in claimed], claimed[0].lease)


async def record_attempts(merchant_id: str, results: Sequence[Recorded]) -> None:
    """Write attempts and what follows from them, in one transaction. Raises asyncpg's errors; then nothing is written."""
    # One order of rows for all workers, so that none wait for each other in a circle.
    results = sorted(results, key=lambda result: result.claimed.id)
    now = max(result.at for result in results)
    gone = sorted({result.claimed.endpoint_id for result in results if result.gone})
    parts = [(_RECORD, merchant_id, now, as_json(map(_columns, part))) for part in _each_delivery_once(results)]
    if len(parts) == 1 and not gone:
        await write_alone(*parts[0])
        return

    async def write(conn: "PoolConnectionProxy[Any]") -> None:
        for part in parts:
            await conn.execute(*part)
        if gone:
            await conn.execute(_DISABLE, merchant_id, gone, now, "The endpoint answered 410 Gone.")

    await write_rows(write)


def _each_delivery_once(results: Sequence[Recorded]) -> list[list[Recorded]]:
    """Split results, so that each part can be written by one statement, which sees no row that it has changed itself.

    A delivery whose lease was released by a restore may have been claimed and attempted here a second time meanwhile.
    """
    parts: list[list[Recorded]] = []
    seen: Counter[str] = Counter()
    for result in results:
        place = seen[result.claimed.id]
        seen[result.claimed.id] += 1
        if place == len(parts):
            parts.append([])
        parts[place].append(result)
    return parts


def _columns(result: Recorded) -> dict[str, object]:
    return {
        "id": result.claimed.id,
        "lease": result.claimed.lease,
        "status": result.status,
        "next_attempt_at": result.next_attempt_at,
        "scheduled": result.scheduled,
        "at": result.at,
        "url": result.claimed.url,
        "signature": result.signature,
        "signed_at": result.signed_at,
        "fault_id": None if result.fault is None else result.fault.id,
        "fault_kind": None if result.fault is None else result.fault.kind,
        "http_status": result.http_status,
        "headers": dict(result.headers),
        "body": result.body,
        "error": result.error,
        "duration_ms": result.duration_ms,
    }
