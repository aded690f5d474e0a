"""Claim due webhook deliveries and record their attempts."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from sandbox.db.engine import connection
from sandbox.db.rows import as_json
from sandbox.db.statements import read_statements
from sandbox.domain.clock import Clock
from sandbox.domain.fault import Fault, to_fault
from sandbox.domain.trace import derive
from sandbox.unit_of_work.transaction import execute_in_own_transaction, write_rows
from sandbox.webhooks.sender import SendResult

if TYPE_CHECKING:
    from asyncpg import Record
    from asyncpg.pool import PoolConnectionProxy

LEASE: Final = timedelta(seconds=30)
"""How long a claim lasts: twice an attempt's 15 s. Once it has expired, another worker can claim the delivery."""

FROZEN_CLAIM_LIMIT: Final = 64
"""Maximum number of deliveries per endpoint in one claim while the clock is frozen. They are sent one after the other."""

Fetch = Callable[..., Awaitable[list["Record"]]]
"""Run a statement with its arguments, in the caller's transaction or in its own."""

_SQL: Final = read_statements(__name__)
_CLOCK: Final = _SQL["clock"]
_LOCK: Final = _SQL["lock"]
_BUSY: Final = _SQL["busy"]
_CLAIM: Final = _SQL["claim"]
_RELEASE: Final = _SQL["release"]
_RECORD: Final = _SQL["record"]
_DISABLE: Final = _SQL["disable"]
_decode_secrets: Final = msgspec.json.Decoder(tuple[tuple[bytes, datetime], ...]).decode


class ClaimedEndpoint(msgspec.Struct, frozen=True):
    """An enabled endpoint as it was when its deliveries were claimed."""

    url: str
    sealed_secrets: tuple[bytes, ...]
    """All sign: the current one, then the previous ones that have not expired."""
    retry_profile: str
    signing: str = "v1"
    signing_time: str = "host"
    """The clock of the signature's timestamp: `host` or `merchant`."""
    custom_signing: str | None = None
    """JSON."""
    failing_since: datetime | None = None
    """The merchant's time of the first failed attempt since the last successful one."""
    faults: tuple[Fault, ...] = ()


class ClaimedDelivery(msgspec.Struct, frozen=True):
    """A delivery claimed until `lease`, with everything that its HTTP call needs."""

    id: str
    event_id: str
    endpoint_id: str
    endpoint: ClaimedEndpoint
    scheduled_attempts: int
    """Number of attempts that count in the retry schedule so far."""
    attempt: int
    """Number of this attempt, from 1. It counts every attempt, including resends and postponed ones."""
    event_type: str
    body: bytes
    request_id: str
    lease: datetime
    clock: Clock
    traceparent: str
    """The trace that the event belongs to."""
    manual: bool = False
    """Whether someone asked for this attempt (resend, recover)."""


class Exchange(msgspec.Struct, frozen=True):
    """What an attempt sent, and what came back.

    `signature` and `signed_at` (the timestamp in Unix seconds) are as sent; empty and None if nothing was sent. `fault` is the
    fault that hit. If it postponed the attempt, `not_before` is the earliest time of the next one, in the merchant's time.
    """

    signature: str
    signed_at: int | None
    result: SendResult
    not_before: datetime | None = None
    fault: Fault | None = None
    request_headers: Mapping[str, str] | None = None
    """The signature's headers, unless they are those of Standard Webhooks."""


class AttemptResult(msgspec.Struct, frozen=True):
    """The result of one attempt, ready to be written. `next_attempt_at` and `at` are in the merchant's time."""

    claimed: ClaimedDelivery
    scheduled_attempts: int
    status: str
    next_attempt_at: datetime | None
    at: datetime
    exchange: Exchange
    gone: bool = False


class Claim(NamedTuple):
    """The result of a claim for several merchants."""

    lease: datetime
    endpoints: Mapping[tuple[str, str], ClaimedEndpoint]
    """All enabled endpoints of the merchants, by merchant and endpoint."""
    deliveries: Sequence[tuple[str, ClaimedDelivery]]
    """The merchant of each delivery claimed, and the delivery. The earliest come first."""


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
    fetch: Fetch, merchant_id: str, clock: Clock, capacity: Mapping[str, int], default_capacity: int
) -> list[ClaimedDelivery]:
    by_merchant = {(merchant_id, endpoint_id): count for endpoint_id, count in capacity.items()}
    claim = await claim_together(fetch, {merchant_id: clock}, by_merchant, default_capacity)
    return [delivery for _, delivery in claim.deliveries]


async def claim_together(
    fetch: Fetch, clocks: Mapping[str, Clock], capacity: Mapping[tuple[str, str], int], default_capacity: int = 0
) -> Claim:
    """Claim the due deliveries of the merchants in `clocks`, in one statement.

    `capacity` limits the deliveries by merchant and endpoint, and `default_capacity` those of each endpoint not in it.
    Raises asyncpg's errors.
    """
    wall_now = datetime.now(UTC)
    lease = wall_now + LEASE
    records = await fetch(
        _CLAIM,
        list(clocks),
        [clock.now(wall_now) for clock in clocks.values()],
        wall_now,
        [merchant_id for merchant_id, _ in capacity],
        [endpoint_id for _, endpoint_id in capacity],
        list(capacity.values()),
        default_capacity,
        lease,
    )
    endpoints: dict[tuple[str, str], ClaimedEndpoint] = {}
    for r in records:
        key = r["merchant_id"], r["endpoint_id"]
        if key not in endpoints:
            endpoints[key] = _endpoint(r, clocks[key[0]].now(wall_now))
    claimed = sorted((r for r in records if r["id"] is not None), key=itemgetter("next_attempt_at", "id"))
    deliveries = [
        (
            r["merchant_id"],
            ClaimedDelivery(
                id=r["id"],
                event_id=r["event_id"],
                endpoint_id=r["endpoint_id"],
                endpoint=endpoints[r["merchant_id"], r["endpoint_id"]],
                scheduled_attempts=r["scheduled"],
                attempt=r["attempts"] + 1,
                event_type=r["type"],
                body=r["body"].encode(),
                request_id=r["request_id"],
                lease=lease,
                clock=clocks[r["merchant_id"]],
                traceparent=r["traceparent"] or derive(r["request_id"]),
                manual=bool(r["resent"]),
            ),
        )
        for r in claimed
    ]
    return Claim(lease, endpoints, deliveries)


def _endpoint(record: "Record", now: datetime) -> ClaimedEndpoint:
    previous = () if record["previous_secrets"] is None else _decode_secrets(record["previous_secrets"])
    return ClaimedEndpoint(
        url=record["url"],
        sealed_secrets=(record["secret"], *(sealed for sealed, expires_at in previous if expires_at > now)),
        retry_profile=record["retry_profile"],
        signing=record["signing"],
        signing_time=record["signing_time"] or "host",
        custom_signing=record["custom_signing"],
        failing_since=record["failing_since"],
        faults=tuple(to_fault(*fault) for fault in record["faults"]),
    )


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
    exchange = result.exchange
    timings = exchange.result.timings
    return {
        "id": result.claimed.id,
        "lease": result.claimed.lease,
        "status": result.status,
        "next_attempt_at": result.next_attempt_at,
        "scheduled": result.scheduled_attempts,
        "at": result.at,
        "url": result.claimed.endpoint.url,
        "signature": exchange.signature,
        "signed_at": exchange.signed_at,
        "fault_id": None if exchange.fault is None else exchange.fault.id,
        "fault_kind": None if exchange.fault is None else exchange.fault.kind,
        "http_status": exchange.result.status,
        "headers": exchange.result.response_headers,
        "body": exchange.result.response_body,
        "error": exchange.result.error,
        "error_class": exchange.result.error_class,
        "dns_ms": timings.dns_ms,
        "connect_ms": timings.connect_ms,
        "tls_ms": timings.tls_ms,
        "first_byte_ms": timings.first_byte_ms,
        "duration_ms": exchange.result.duration_ms,
        "manual": result.claimed.manual or None,
        "request_headers": exchange.request_headers,
    }
