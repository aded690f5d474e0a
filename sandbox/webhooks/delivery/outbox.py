"""Claim due webhook deliveries and record their attempts."""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, Final, NamedTuple

import msgspec
from asyncpg import Record

from sandbox.domain.clock import Clock
from sandbox.domain.trace import derive
from sandbox.http.fault import Fault, to_fault
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.rows import as_json
from sandbox.infrastructure.db.statements import read_statements
from sandbox.unit_of_work.transaction import execute_in_own_transaction, write_rows
from sandbox.webhooks.delivery.endpoint_health import AttemptOutcome, HealthChange, health_changes
from sandbox.webhooks.delivery.health_changes import change_health
from sandbox.webhooks.delivery.pacing import Slot
from sandbox.webhooks.delivery.retry_schedule import Outcome
from sandbox.webhooks.outbound.sender import SendResult

LEASE: Final = timedelta(seconds=30)
"""How long a claim lasts: twice an attempt's 15 s. Once it has expired, another worker can claim the delivery."""

Fetch = Callable[..., Awaitable[list[Record]]]
"""Run a statement with its arguments, in the caller's transaction or in its own."""

_SQL: Final = read_statements(__name__)
CLAIM: Final = _SQL["claim"]
"""The statement of `claim_together`."""
decode_previous_secrets: Final = msgspec.json.Decoder(tuple[tuple[bytes, datetime], ...]).decode
"""Decodes the previous secrets of an endpoint: each is sealed, with the merchant's time when it expires, newest first."""


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
    wire: str | None = None
    """JSON: the dialect that the endpoint was made in, and what it needs to know. None for most."""
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
    payout_id: str | None = None
    """The payout whose later events wait for this delivery. None if the endpoint is not ordered."""
    is_translated: bool = False
    """Whether `body` is that of a dialect, which none of our headers may accompany."""
    slot: Slot | None = None
    """When the attempt may start. None if the endpoint has no rate limit."""


class Exchange(msgspec.Struct, frozen=True):
    """The request of an attempt, and the response.

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


async def claim_together(
    fetch: Fetch,
    clocks: Mapping[str, Clock],
    capacity: Mapping[tuple[str, str], int],
    default_capacity: int = 0,
    chosen: Sequence[str] | None = None,
) -> Claim:
    """Claim the due deliveries of the merchants in `clocks`, in one statement.

    `capacity` limits the deliveries by merchant and endpoint, and `default_capacity` those of each endpoint not in it. Paced
    endpoints are skipped, unless `chosen` is given: then only they are served, and only with the deliveries of these ids.
    Raises asyncpg's errors.
    """
    wall_now = datetime.now(UTC)
    lease = wall_now + LEASE
    records = await fetch(
        CLAIM,
        list(clocks),
        [clock.now(wall_now) for clock in clocks.values()],
        wall_now,
        [merchant_id for merchant_id, _ in capacity],
        [endpoint_id for _, endpoint_id in capacity],
        list(capacity.values()),
        default_capacity,
        lease,
        chosen,
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


def _endpoint(record: Record, now: datetime) -> ClaimedEndpoint:
    return ClaimedEndpoint(
        url=record["url"],
        sealed_secrets=valid_secrets(record["secret"], record["previous_secrets"], now),
        retry_profile=record["retry_profile"],
        signing=record["signing"],
        signing_time=record["signing_time"] or "host",
        custom_signing=record["custom_signing"],
        wire=record["wire"],
        failing_since=record["failing_since"],
        faults=tuple(to_fault(fault) for fault in record["faults"]),
    )


def valid_secrets(current: bytes, previous: str | None, now: datetime) -> tuple[bytes, ...]:
    """Return an endpoint's current secret and the previous ones, from their JSON, that have not expired. All are sealed."""
    if previous is None:
        return (current,)
    return (current, *(sealed for sealed, expires_at in decode_previous_secrets(previous) if expires_at > now))


async def release_claims(merchant_id: str, claimed: Sequence[ClaimedDelivery]) -> None:
    """Release deliveries of one claim that will not be attempted, so that others can claim them. Raises asyncpg's errors."""
    await execute_in_own_transaction(
        merchant_id, _SQL["release"], merchant_id, [delivery.id for delivery in claimed], claimed[0].lease
    )


async def record_attempts(merchant_id: str, results: Sequence[AttemptResult]) -> None:
    """Write attempts and the resulting delivery statuses in one transaction.

    Raises asyncpg's errors. If it raises, nothing was written.
    """
    record = _record(merchant_id, results)
    if len(record.parts) == 1 and not record.changes and not record.ended:
        await execute_in_own_transaction(merchant_id, *record.parts[0])
    else:
        await write_rows(merchant_id, lambda conn: _write(conn, merchant_id, record))


async def record_in_transaction(conn: Connection, merchant_id: str, results: Sequence[AttemptResult]) -> None:
    """Write attempts and the resulting delivery statuses in the caller's transaction. Raises asyncpg's errors."""
    await _write(conn, merchant_id, _record(merchant_id, results))


class _Record(NamedTuple):
    now: datetime
    parts: Sequence[tuple[Any, ...]]
    """Statements that write attempts and deliveries, with their arguments."""
    ended: Collection[tuple[str, str]]
    """Ordered endpoints, and the payouts whose later events can be sent to them now."""
    changes: Sequence[HealthChange]


def _record(merchant_id: str, results: Sequence[AttemptResult]) -> _Record:
    # All workers lock the rows in the same order. Otherwise they could deadlock.
    results = sorted(results, key=lambda result: result.claimed.id)
    now = max(result.at for result in results)
    parts = [(_SQL["record"], merchant_id, now, as_json(map(_columns, part))) for part in _each_delivery_once(results)]
    ended = {
        (result.claimed.endpoint_id, result.claimed.payout_id)
        for result in results
        if result.claimed.payout_id is not None and result.status != "PENDING"
    }
    return _Record(now, parts, ended, health_changes(_outcomes(results)))


async def _write(conn: Connection, merchant_id: str, record: _Record) -> None:
    for part in record.parts:
        await conn.execute(*part)
    if record.ended:
        endpoint_ids, payout_ids = zip(*sorted(record.ended), strict=True)
        # A claim that still saw these deliveries as pending has set later due times by the time it releases this lock.
        # Endpoints are locked in the order of their ids, so all that this transaction changes are locked now.
        await conn.execute(
            _SQL["lock_ordered"], merchant_id, sorted({*endpoint_ids, *(change.id for change in record.changes)})
        )
        await conn.execute(_SQL["release_followers"], merchant_id, record.now, endpoint_ids, payout_ids)
    if record.changes:
        await change_health(conn, merchant_id, record.changes, record.now)


def _outcomes(results: Sequence[AttemptResult]) -> Iterator[AttemptOutcome]:
    """Yield the outcomes of attempts that affect an endpoint's health. Attempts that a fault postponed do not."""
    # Ordinarily every attempt succeeds, and nothing is yielded.
    noteworthy = {
        result.claimed.endpoint_id
        for result in results
        if result.status != "SUCCEEDED" or result.claimed.endpoint.failing_since is not None
    }
    for result in results:
        if result.claimed.endpoint_id in noteworthy and result.exchange.not_before is None:
            outcome: Outcome = "gone" if result.gone else "succeeded" if result.status == "SUCCEEDED" else "failed"
            yield AttemptOutcome(result.claimed.endpoint_id, result.claimed.endpoint.failing_since, result.at, outcome)


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
    columns = {
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
    # Most attempts have no value in half of the columns. PostgreSQL takes a missing one as NULL, and parses less.
    return {name: value for name, value in columns.items() if value is not None}
