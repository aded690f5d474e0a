"""The store's side of delivering: claim what is due, and record what became of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from sandbox.clock import Clock
from sandbox.control.faults import Fault, to_fault
from sandbox.control.faults_store import FAULTS_OF
from sandbox.db.engine import connection, transaction
from sandbox.db.rows import as_json

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

LEASE: Final = timedelta(seconds=30)
"""How long a claimed delivery is its claimer's. Twice an attempt's 15 s; after it another worker may try."""

_CLOCK: Final = "SELECT clock_frozen_at, clock_offset FROM merchants WHERE merchant_id = $1"

# Every endpoint gets its own share, so that one which is slow fills its own and no other's. SKIP LOCKED lets two workers
# claim side by side; the lease, in the host's time, outlives the transaction while the HTTP call runs outside of one.
# The faults are read in the same statement: who sees a delivery sees each fault that was made before it.
_CLAIM: Final = f"""
WITH due AS MATERIALIZED (
    SELECT e.id AS endpoint_id, e.url, e.secret, e.retry_profile, c.id
    FROM webhook_endpoints e
    LEFT JOIN unnest($4::uuid[], $5::int[]) AS b (endpoint_id, room) ON b.endpoint_id = e.id
    CROSS JOIN LATERAL (
        SELECT d.id FROM webhook_deliveries d
        WHERE d.merchant_id = $1 AND d.endpoint_id = e.id AND d.next_attempt_at <= $2
            AND (d.leased_until IS NULL OR d.leased_until <= $3)
        ORDER BY d.merchant_id, d.endpoint_id, d.next_attempt_at, d.id
        LIMIT coalesce(b.room, $6::int) FOR NO KEY UPDATE SKIP LOCKED
    ) c
    WHERE e.merchant_id = $1 AND e.status = 'ENABLED'
), claimed AS (
    UPDATE webhook_deliveries d SET leased_until = $7 FROM due
    WHERE d.merchant_id = $1 AND d.id = due.id
    RETURNING d.id, d.event_id, d.scheduled, d.attempts, due.endpoint_id, due.url, due.secret, due.retry_profile
)
SELECT c.id::text AS id, c.event_id::text AS event_id, c.endpoint_id::text AS endpoint_id, c.scheduled, c.attempts, c.url,
    c.secret, c.retry_profile, v.body, v.request_id,
    ARRAY({FAULTS_OF.format(merchant="$1", target="webhooks")}) AS faults
FROM claimed c JOIN events v ON v.merchant_id = $1 AND v.id = c.event_id
"""  # noqa: S608 -- constants

# Whoever lost its lease, or whose delivery was resent meanwhile, adds its attempt to the log and decides nothing else.
_RECORD: Final = """
WITH n AS MATERIALIZED (
    SELECT * FROM json_to_recordset($3::json) AS n (id uuid, lease timestamptz, status text, next_attempt_at timestamptz,
        scheduled int, at timestamptz, url text, signature text, http_status int, headers jsonb, body text, error text,
        duration_ms int)
), d AS (
    UPDATE webhook_deliveries d SET
        attempts = d.attempts + 1,
        status = CASE WHEN d.leased_until = n.lease THEN n.status ELSE d.status END,
        next_attempt_at = CASE WHEN d.leased_until = n.lease THEN n.next_attempt_at ELSE d.next_attempt_at END,
        scheduled = CASE WHEN d.leased_until = n.lease THEN n.scheduled ELSE d.scheduled END,
        leased_until = CASE WHEN d.leased_until = n.lease THEN NULL ELSE d.leased_until END,
        updated_at = $2
    FROM n WHERE d.merchant_id = $1 AND d.id = n.id
    RETURNING d.id, d.attempts
)
INSERT INTO webhook_attempts (merchant_id, delivery_id, attempt, at, url, signature, status, response_headers, response_body,
    error, duration_ms)
SELECT $1, n.id, d.attempts, n.at, n.url, n.signature, n.http_status, n.headers, n.body, n.error, n.duration_ms
FROM n JOIN d ON d.id = n.id
"""

_DISABLE: Final = """
UPDATE webhook_endpoints SET status = 'DISABLED', disabled_reason = $4, updated_at = $3
WHERE merchant_id = $1 AND id = ANY ($2::uuid[]) AND status = 'ENABLED'
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is ours until `lease`, with all that its HTTP call needs."""

    id: str
    event_id: str
    endpoint_id: str
    url: str
    sealed_secret: bytes
    retry_profile: str
    scheduled: int
    """Turns of the retry profile that it has taken."""
    attempt: int
    """Which attempt this is, from 1; more than its turns, if it was sent again or put off."""
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
    http_status: int | None
    headers: Mapping[str, str]
    body: str
    error: str | None
    duration_ms: int
    gone: bool


async def claim_due(merchant_id: str, room: Mapping[str, int], room_of_others: int) -> list[Claimed]:
    """Claim deliveries that are due now: at most `room[endpoint]` each, `room_of_others` where it does not say.

    Raises asyncpg's errors; then nothing is claimed.
    """
    async with connection() as conn:
        return await claim_in(conn, merchant_id, room, room_of_others)


async def claim_in(
    conn: "PoolConnectionProxy[Any]", merchant_id: str, room: Mapping[str, int], room_of_others: int
) -> list[Claimed]:
    """As `claim_due`, on the caller's connection; in a transaction, they are claimed when it commits."""
    record = await conn.fetchrow(_CLOCK, merchant_id)
    if record is None:
        return []
    clock = Clock(record["clock_frozen_at"], record["clock_offset"])
    real = datetime.now(UTC)
    lease = real + LEASE
    records = await conn.fetch(
        _CLAIM, merchant_id, clock.now(real), real, list(room), list(room.values()), room_of_others, lease
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
            scheduled=r["scheduled"],
            attempt=r["attempts"] + 1,
            body=r["body"].encode(),
            request_id=r["request_id"],
            lease=lease,
            clock=clock,
            faults=faults,
        )
        for r in sorted(records, key=itemgetter("id"))
    ]


async def record_attempts(merchant_id: str, results: Sequence[Recorded]) -> None:
    """Write attempts and what follows from them, in one transaction. Raises asyncpg's errors; then nothing is written."""
    # One order of rows for all workers, so that none wait for each other in a circle.
    results = sorted(results, key=lambda result: result.claimed.id)
    now = max(result.at for result in results)
    gone = sorted({result.claimed.endpoint_id for result in results if result.gone})
    async with transaction() as conn:
        await conn.execute(_RECORD, merchant_id, now, as_json(map(_columns, results)))
        if gone:
            await conn.execute(_DISABLE, merchant_id, gone, now, "The endpoint answered 410 Gone.")


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
        "http_status": result.http_status,
        "headers": dict(result.headers),
        "body": result.body,
        "error": result.error,
        "duration_ms": result.duration_ms,
    }
