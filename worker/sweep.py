"""Find merchants with due work, even if their wake-ups were lost, and purge expired idempotency keys."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from sandbox.infrastructure.db.all_shards import on_every_shard
from sandbox.infrastructure.db.distributed.placement import every_shard
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, connection
from sandbox.infrastructure.metrics import WORK_LAG
from sandbox.unit_of_work.transaction import write_rows
from sandbox.webhooks.delivery.outbox import LEASE

if TYPE_CHECKING:
    from asyncpg import Record
    from asyncpg.pool import PoolConnectionProxy

INTERVAL: Final = 0.5
_MAX_SHARE: Final = 0.04
"""Maximum share of a worker's time spent on sweeps, unless the interval is at its upper bound. With scheduled work for
100,000 merchants, a sweep takes about 0.1 s."""
_MAX_INTERVAL: Final = 5.0
"""Upper bound of the interval. A slow sweep may have waited for a lock, or the whole machine may have paused."""
PURGE_INTERVAL: Final = 60.0
_MAX_MERCHANTS: Final = 1000
_log = structlog.get_logger()

# Usually nothing is scheduled. This check costs a fraction of the statements below, and a distributed database repeats it in
# each shard.
_ANYTHING_SCHEDULED: Final = """
SELECT EXISTS (SELECT 1 FROM payouts WHERE due_at IS NOT NULL)
    OR EXISTS (SELECT 1 FROM webhook_deliveries WHERE next_attempt_at IS NOT NULL)
    OR EXISTS (SELECT 1 FROM bulk_credits WHERE status IN ('UPLOADED', 'PROCESSING'))
"""

# Each recursion skips from the earliest entry of one merchant (or endpoint) in a partial index to that of the next. So a sweep
# reads one entry per merchant (or endpoint) with scheduled work, however many rows it has, and none for idle merchants.
# A delivery whose attempt is in progress also counts as due. An extra wake-up does no harm.
_DUE: Final = """
WITH RECURSIVE p AS (
    (SELECT merchant_id, due_at FROM payouts WHERE due_at IS NOT NULL ORDER BY merchant_id, due_at, id LIMIT 1)
    UNION ALL
    SELECT n.* FROM p CROSS JOIN LATERAL (
        SELECT merchant_id, due_at FROM payouts WHERE merchant_id > p.merchant_id AND due_at IS NOT NULL
        ORDER BY merchant_id, due_at, id LIMIT 1
    ) n
), d AS (
    (SELECT merchant_id, endpoint_id, next_attempt_at FROM webhook_deliveries WHERE next_attempt_at IS NOT NULL
    ORDER BY merchant_id, endpoint_id, next_attempt_at, id LIMIT 1)
    UNION ALL
    SELECT n.* FROM d CROSS JOIN LATERAL (
        SELECT merchant_id, endpoint_id, next_attempt_at FROM webhook_deliveries
        WHERE (merchant_id, endpoint_id) > (d.merchant_id, d.endpoint_id) AND next_attempt_at IS NOT NULL
        ORDER BY merchant_id, endpoint_id, next_attempt_at, id LIMIT 1
    ) n
)
SELECT p.merchant_id::text FROM p
CROSS JOIN LATERAL (SELECT clock_frozen_at, clock_offset FROM worlds WHERE worlds.merchant_id = p.merchant_id OFFSET 0) w
WHERE w.clock_frozen_at IS NULL AND p.due_at <= $1::timestamptz + w.clock_offset
UNION
SELECT d.merchant_id::text FROM d
CROSS JOIN LATERAL (SELECT clock_frozen_at, clock_offset FROM worlds WHERE worlds.merchant_id = d.merchant_id OFFSET 0) w
CROSS JOIN LATERAL (
    SELECT status, relayed FROM webhook_endpoints e
    WHERE e.merchant_id = d.merchant_id AND e.id >= d.endpoint_id AND e.id <= d.endpoint_id
    ORDER BY e.merchant_id, e.id OFFSET 0
) e
WHERE w.clock_frozen_at IS NULL AND e.status = 'ENABLED' AND e.relayed IS NOT TRUE
    AND d.next_attempt_at <= $1::timestamptz + w.clock_offset
LIMIT $2
"""

# In a frozen world nothing becomes due by itself, but a worker may have died with deliveries claimed.
_FROZEN_WITH_DUE_DELIVERIES: Final = """
SELECT w.merchant_id::text FROM worlds w
WHERE w.clock_frozen_at IS NOT NULL AND EXISTS (
    SELECT 1 FROM webhook_endpoints e
    WHERE e.merchant_id = w.merchant_id AND e.status = 'ENABLED' AND e.relayed IS NOT TRUE AND (
        SELECT d.next_attempt_at FROM webhook_deliveries d
        WHERE d.merchant_id = w.merchant_id AND d.endpoint_id = e.id AND d.next_attempt_at IS NOT NULL
        ORDER BY d.merchant_id, d.endpoint_id, d.next_attempt_at LIMIT 1
    ) <= w.clock_frozen_at)
LIMIT $1
"""

# The index covers only unfinished bulk credits. They do not depend on the clock, so they also run in a frozen world.
_TO_CREDIT: Final = """
SELECT DISTINCT merchant_id::text FROM bulk_credits WHERE status IN ('UPLOADED', 'PROCESSING') LIMIT $1
"""

_EXPIRED: Final = """
SELECT l.merchant_id::text, l.key, l.expires_at FROM worlds w CROSS JOIN LATERAL (
    SELECT i.merchant_id, i.key, i.expires_at FROM idempotency_keys i WHERE i.merchant_id = w.merchant_id
        AND i.expires_at <= coalesce(w.clock_frozen_at, $1::timestamptz + w.clock_offset)
    ORDER BY i.merchant_id, i.expires_at LIMIT 1000
) l LIMIT $2
"""
# One key per statement: to delete many, the planner may choose a join that reads all keys. A new request may have reused an
# expired key since the SELECT; the comparison of expires_at keeps it.
_PURGE: Final = "DELETE FROM idempotency_keys WHERE merchant_id = $1 AND key = $2 AND expires_at = $3"
_MAX_PURGED_KEYS: Final = 10_000

_PURGE_OPERATOR_KEYS: Final = """
DELETE FROM operator_keys WHERE (merchant_id, key) IN (
    SELECT merchant_id, key FROM operator_keys WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2
) AND expires_at <= $1
"""


async def merchants_with_work(now: datetime) -> tuple[list[str], list[str]]:
    """Return merchants with a step or delivery due at the host's time `now`, and those with an unfinished bulk credit.

    Of each, at most a thousand for each shard.
    """

    async def read(conn: "PoolConnectionProxy[Any]") -> list[tuple[str, bool]]:
        if not await conn.fetchval(_ANYTHING_SCHEDULED):
            return []
        due = await conn.fetch(_DUE, now, _MAX_MERCHANTS)
        to_credit = await conn.fetch(_TO_CREDIT, _MAX_MERCHANTS)
        return [(record["merchant_id"], records is due) for records in (due, to_credit) for record in records]

    found = (await on_every_shard(read)).rows
    return [id_ for id_, is_due in found if is_due], [id_ for id_, is_due in found if not is_due]


async def frozen_merchants_with_due_deliveries() -> list[str]:
    """Return merchants with a frozen clock and a due delivery, at most a thousand for each shard."""
    found = await on_every_shard(lambda conn: conn.fetch(_FROZEN_WITH_DUE_DELIVERIES, _MAX_MERCHANTS))
    return [record["merchant_id"] for record in found.rows]


async def purge_expired_keys(now: datetime) -> None:
    """Delete up to 10,000 expired merchant keys and 10,000 expired operator keys (idempotency keys) in each shard.

    `now` is the host's time. A merchant's keys expire by the merchant's own clock. Raises CONNECTION_ERRORS, after the shards
    of all nodes that respond.
    """
    failed: Exception | None = None
    for shard in await every_shard():
        try:
            async with connection(shard) as conn:
                expired = await conn.fetch(_EXPIRED, now, _MAX_PURGED_KEYS)
            await write_rows(shard, partial(_purge, expired=expired, now=now))
        except CONNECTION_ERRORS as error:
            failed = error
    if failed is not None:
        raise failed


async def _purge(conn: "PoolConnectionProxy[Any]", expired: "Sequence[Record]", now: datetime) -> None:
    await conn.executemany(_PURGE, [tuple(record) for record in expired])
    await conn.execute(_PURGE_OPERATOR_KEYS, now, _MAX_PURGED_KEYS)


async def sweep_forever(wake: Callable[[str], None], wake_credits: Callable[[str], None]) -> None:
    """Sweep every half second: call `wake` for merchants with due steps or deliveries, `wake_credits` for bulk credits.

    If a sweep takes more than 20 ms, wait 25 times as long as it took, up to 5 seconds. Frozen worlds are checked only once,
    when the leases of any earlier worker have expired.
    """
    purged = 0.0
    check_frozen_after: float | None = time.monotonic() + LEASE.total_seconds()
    while True:
        started = time.monotonic()
        try:
            merchants, to_credit = await merchants_with_work(datetime.now(UTC))
            for merchant_id in merchants:
                wake(merchant_id)
            for merchant_id in to_credit:
                wake_credits(merchant_id)
            if not merchants:
                WORK_LAG.labels("payouts").set(0)
            if started - purged > PURGE_INTERVAL:
                await purge_expired_keys(datetime.now(UTC))
                purged = started
            if check_frozen_after is not None and started > check_frozen_after:
                for merchant_id in await frozen_merchants_with_due_deliveries():
                    wake(merchant_id)
                check_frozen_after = None
        except CONNECTION_ERRORS as error:
            _log.warning("sweep_interrupted", error=repr(error)[:300])
        except Exception:
            # A bug for one merchant must not end the loop that serves all of them.
            _log.exception("sweep_failed")
        await asyncio.sleep(min(max(INTERVAL, (time.monotonic() - started) / _MAX_SHARE), _MAX_INTERVAL))
