"""Claim due webhook deliveries and record their attempts."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import ceil
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.db.engine import connection
from sandbox.db.rows import as_json
from sandbox.db.statements import read_statements
from sandbox.domain.clock import Clock
from sandbox.domain.fault import Fault, to_fault
from sandbox.domain.unit import UnitOfWork
from sandbox.unit_of_work.transaction import execute_in_own_transaction, write_rows

if TYPE_CHECKING:
    from asyncpg import Record
    from asyncpg.pool import PoolConnectionProxy

LEASE: Final = timedelta(seconds=30)
"""How long a claim lasts: twice an attempt's 15 s. Once it has expired, another worker can claim the delivery."""

_PARALLEL_CALLS: Final = 32
"""Number of new deliveries to one endpoint that get a call each. If there are more, each call sends several."""
LEASED_PER_CALL: Final = 4
"""Maximum number of new deliveries leased for one call, which sends them one after the other."""

FROZEN_CLAIM_LIMIT: Final = 64
"""Maximum number of deliveries per endpoint in one claim while the clock is frozen. They are sent one after the other."""

BeginCalls = Callable[[str, Mapping[str, int]], Mapping[str, int]]
"""Begin as many of a merchant's wanted calls as possible, given the number per endpoint. Return how many began for each."""

_SQL: Final = read_statements(__name__)
_CLOCK: Final = _SQL["clock"]
_LOCK: Final = _SQL["lock"]
_BUSY: Final = _SQL["busy"]
_CLAIM: Final = _SQL["claim"]
_RELEASE: Final = _SQL["release"]
_RECORD: Final = _SQL["record"]
_DISABLE: Final = _SQL["disable"]

# What a claim returns about enabled endpoints, and the faults of their merchants. The caller holds the merchants' locks, so the
# statement sees every fault made before the deliveries.
_ENDPOINTS: Final = """
SELECT n.merchant_id::text AS merchant_id, e.id::text AS id, e.url, e.secret, e.retry_profile, e.signing_time,
    ARRAY(SELECT ROW (id::text, kind, match::text, parameters::text, probability, seed) FROM faults f
        WHERE f.merchant_id = n.merchant_id AND target = 'webhooks' AND hits < coalesce(count, hits + 1) ORDER BY id) AS faults
FROM unnest($1::uuid[]) AS n (merchant_id)
CROSS JOIN LATERAL (
    SELECT id, url, secret, retry_profile, signing_time FROM webhook_endpoints w
    WHERE w.merchant_id = n.merchant_id AND w.status = 'ENABLED' OFFSET 0
) e
"""


class ClaimedDelivery(msgspec.Struct, frozen=True):
    """A delivery claimed until `lease`, with everything that its HTTP call needs."""

    id: str
    event_id: str
    endpoint_id: str
    url: str
    sealed_secret: bytes
    retry_profile: str
    signing_time: str
    """The clock of the webhook-timestamp: `host` or `merchant`."""
    scheduled_attempts: int
    """Number of attempts that count in the retry schedule so far."""
    attempt: int
    """Number of this attempt, from 1. It counts every attempt, including resends and postponed ones."""
    event_type: str
    body: bytes
    request_id: str
    lease: datetime
    clock: Clock
    faults: tuple[Fault, ...] = ()


class AttemptResult(msgspec.Struct, frozen=True):
    """The result of one attempt, ready to be written. `next_attempt_at` and `at` are in the merchant's time."""

    claimed: ClaimedDelivery
    scheduled_attempts: int
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
    merchant_id: str, capacity: Mapping[str, int], default_capacity: int
) -> tuple[list[ClaimedDelivery], frozenset[str]]:
    """Claim due deliveries: at most `capacity[endpoint]` for each endpoint, `default_capacity` for endpoints not in `capacity`.

    With a frozen clock, deliveries are sent one after the other and these limits do not apply. The claim then skips busy
    endpoints, those with an attempt in progress in any process. Returns the deliveries and the ids of the busy endpoints.
    Raises asyncpg's errors. If it raises, nothing was claimed.
    """
    async with connection() as conn:
        clock = await _clock(conn, _CLOCK, merchant_id)
    if clock is None:
        return [], frozenset()
    if clock.frozen_at is None:
        return await _claim(execute_in_own_transaction, merchant_id, clock, capacity, default_capacity), frozenset()

    async def claim_frozen(conn: "PoolConnectionProxy[Any]") -> tuple[list[ClaimedDelivery], frozenset[str]]:
        # Concurrent claims would not see each other's leases. Under the merchant's lock, the second sees the first one's.
        clock = await _clock(conn, _LOCK, merchant_id)
        return ([], frozenset()) if clock is None else await _claim_frozen(conn, merchant_id, clock)

    return await write_rows(claim_frozen)


async def claim_in_transaction(
    conn: "PoolConnectionProxy[Any]", merchant_id: str, capacity_per_endpoint: int
) -> list[ClaimedDelivery]:
    """Claim due deliveries in the caller's transaction, which must hold the merchant's lock. See `claim_due`."""
    clock = await _clock(conn, _CLOCK, merchant_id)
    if clock is None:
        return []
    if clock.frozen_at is None:
        return await _claim(conn.fetch, merchant_id, clock, {}, capacity_per_endpoint)
    claimed, _ = await _claim_frozen(conn, merchant_id, clock)
    return claimed


async def _clock(conn: "PoolConnectionProxy[Any]", statement: str, merchant_id: str) -> Clock | None:
    record = await conn.fetchrow(statement, merchant_id)
    return None if record is None else Clock(record["clock_frozen_at"], record["clock_offset"])


async def _claim_frozen(
    conn: "PoolConnectionProxy[Any]", merchant_id: str, clock: Clock
) -> tuple[list[ClaimedDelivery], frozenset[str]]:
    """Claim for endpoints that are not busy. Returns the busy ones too. The caller must hold the merchant's lock."""
    wall_now = datetime.now(UTC)
    busy = frozenset(record["id"] for record in await conn.fetch(_BUSY, merchant_id, clock.now(wall_now), wall_now))
    return await _claim(conn.fetch, merchant_id, clock, dict.fromkeys(busy, 0), FROZEN_CLAIM_LIMIT), busy


async def _claim(
    fetch: "Callable[..., Awaitable[list[Record]]]",
    merchant_id: str,
    clock: Clock,
    capacity: Mapping[str, int],
    default_capacity: int,
) -> list[ClaimedDelivery]:
    wall_now = datetime.now(UTC)
    lease = wall_now + LEASE
    records = await fetch(
        _CLAIM, merchant_id, clock.now(wall_now), wall_now, list(capacity), list(capacity.values()), default_capacity, lease
    )
    faults = tuple(to_fault(*fault) for fault in records[0]["faults"]) if records else ()
    return [
        ClaimedDelivery(
            id=r["id"],
            event_id=r["event_id"],
            endpoint_id=r["endpoint_id"],
            url=r["url"],
            sealed_secret=r["secret"],
            retry_profile=r["retry_profile"],
            signing_time=r["signing_time"] or "host",
            scheduled_attempts=r["scheduled"],
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


def may_lease(unit: UnitOfWork) -> bool:
    """Return whether a unit has deliveries to lease. In a frozen world, deliveries are sent in order, so a claim takes them."""
    return unit.clock.frozen_at is None and any(delivery.enabled for delivery in unit.deliveries)


async def read_endpoints(conn: "PoolConnectionProxy[Any]", merchant_ids: Sequence[str]) -> "dict[tuple[str, str], Record]":
    """Return the enabled endpoints of merchants that the caller has locked, by merchant and endpoint. For `lease_new`."""
    records = await conn.fetch(_ENDPOINTS, merchant_ids)
    return {(record["merchant_id"], record["id"]): record for record in records}


def lease_new(
    unit: UnitOfWork, endpoints: "Mapping[tuple[str, str], Record]", begin: BeginCalls
) -> list[list[ClaimedDelivery]]:
    """Lease the deliveries that a unit will insert, earliest first, for as many calls as can begin now.

    Marks them in the unit. Returns a sequence of at most LEASED_PER_CALL deliveries for each call that began.
    """
    due = [
        (index, delivery, endpoint)
        for index, delivery in enumerate(unit.deliveries)
        if delivery.enabled and (endpoint := endpoints.get((unit.merchant_id, delivery.endpoint_id))) is not None
    ]
    events = {event.id: (event, event.body.encode()) for event in unit.events}
    faults = {endpoint["id"]: tuple(to_fault(*fault) for fault in endpoint["faults"]) for _, _, endpoint in due}
    counts = Counter(delivery.endpoint_id for _, delivery, _ in due)
    wanted = {id_: min(count, max(_PARALLEL_CALLS, ceil(count / LEASED_PER_CALL))) for id_, count in counts.items()}
    calls = begin(unit.merchant_id, wanted)
    sequences: dict[str, list[list[ClaimedDelivery]]] = {id_: [[] for _ in range(count)] for id_, count in calls.items()}
    leased: Counter[str] = Counter()
    lease = datetime.now(UTC) + LEASE
    for index, delivery, endpoint in due:
        number, count = leased[delivery.endpoint_id], calls.get(delivery.endpoint_id, 0)
        if number == count * (1 if counts[delivery.endpoint_id] <= _PARALLEL_CALLS else LEASED_PER_CALL):
            continue
        leased[delivery.endpoint_id] += 1
        event, body = events[delivery.event_id]
        unit.deliveries[index] = replace(delivery, leased_until=lease)
        sequences[delivery.endpoint_id][number % count].append(
            ClaimedDelivery(
                id=delivery.id,
                event_id=delivery.event_id,
                endpoint_id=delivery.endpoint_id,
                url=endpoint["url"],
                sealed_secret=endpoint["secret"],
                retry_profile=endpoint["retry_profile"],
                signing_time=endpoint["signing_time"] or "host",
                scheduled_attempts=0,
                attempt=1,
                event_type=event.type,
                body=body,
                request_id=event.request_id,
                lease=lease,
                clock=unit.clock,
                faults=faults[delivery.endpoint_id],
            )
        )
    return [sequence for of_endpoint in sequences.values() for sequence in of_endpoint]


async def release_claims(merchant_id: str, claimed: Sequence[ClaimedDelivery]) -> None:
    """Release deliveries of one claim that will not be attempted, so that others can claim them. Raises asyncpg's errors."""
    await execute_in_own_transaction(_RELEASE, merchant_id, [delivery.id for delivery in claimed], claimed[0].lease)


async def record_attempts(merchant_id: str, results: Sequence[AttemptResult]) -> None:
    """Write attempts and the resulting delivery statuses in one transaction.

    Raises asyncpg's errors. If it raises, nothing was written.
    """
    # All workers lock the rows in the same order. Otherwise they could deadlock.
    results = sorted(results, key=lambda result: result.claimed.id)
    now = max(result.at for result in results)
    gone = sorted({result.claimed.endpoint_id for result in results if result.gone})
    parts = [(_RECORD, merchant_id, now, as_json(map(_columns, part))) for part in _each_delivery_once(results)]
    if len(parts) == 1 and not gone:
        await execute_in_own_transaction(*parts[0])
        return

    async def write(conn: "PoolConnectionProxy[Any]") -> None:
        for part in parts:
            await conn.execute(*part)
        if gone:
            await conn.execute(_DISABLE, merchant_id, gone, now, "The endpoint responded with 410 Gone.")

    await write_rows(write)


def _each_delivery_once(results: Sequence[AttemptResult]) -> list[list[AttemptResult]]:
    """Split results into parts that contain each delivery at most once, because a statement does not see its own changes.

    Duplicates happen: a restore releases leases, so this process can claim and attempt the same delivery a second time.
    """
    parts: list[list[AttemptResult]] = []
    occurrences: Counter[str] = Counter()
    for result in results:
        index = occurrences[result.claimed.id]
        occurrences[result.claimed.id] += 1
        if index == len(parts):
            parts.append([])
        parts[index].append(result)
    return parts


def _columns(result: AttemptResult) -> dict[str, object]:
    return {
        "id": result.claimed.id,
        "lease": result.claimed.lease,
        "status": result.status,
        "next_attempt_at": result.next_attempt_at,
        "scheduled": result.scheduled_attempts,
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
