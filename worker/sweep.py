"""Find merchants that have work due, whatever wakes were lost; and purge what has lapsed."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Final

import structlog

from sandbox.db.engine import CONNECTION_ERRORS, connection
from sandbox.infrastructure.metrics import WORK_LAG
from sandbox.unit_of_work.transaction import write_alone, write_rows
from sandbox.webhooks.outbox import LEASE
from worker.advance import Advancer
from worker.credit import Crediter

INTERVAL: Final = 0.5
_LONGEST_INTERVAL: Final = 5.0
"""Whatever a sweep took: it may have waited for a lock, or stood still with the machine."""
PURGE_INTERVAL: Final = 60.0
_AT_MOST: Final = 1000
_log = structlog.get_logger()

# The earliest entry of an index for each merchant whose clock runs, none for a frozen one, however many rows either has.
# (With EXISTS the planner may hope to meet a due row soon and scan the table, with min() it may read all of a merchant's.)
# A delivery that is under way counts as due; waking for it does no harm.
_DUE: Final = """
SELECT w.merchant_id::text FROM worlds w
WHERE w.clock_frozen_at IS NULL AND (
    (SELECT p.due_at FROM payouts p WHERE p.merchant_id = w.merchant_id AND p.due_at IS NOT NULL
     ORDER BY p.merchant_id, p.due_at LIMIT 1) <= $1::timestamptz + w.clock_offset
    OR EXISTS (
        SELECT FROM webhook_endpoints e WHERE e.merchant_id = w.merchant_id AND e.status = 'ENABLED' AND (
            SELECT d.next_attempt_at FROM webhook_deliveries d
            WHERE d.merchant_id = w.merchant_id AND d.endpoint_id = e.id AND d.next_attempt_at IS NOT NULL
            ORDER BY d.merchant_id, d.endpoint_id, d.next_attempt_at LIMIT 1
        ) <= $1::timestamptz + w.clock_offset))
LIMIT $2
"""

# In a frozen world nothing falls due by itself; but what a worker had claimed when it died is nobody's any more.
_LEFT_BEHIND: Final = """
SELECT w.merchant_id::text FROM worlds w
WHERE w.clock_frozen_at IS NOT NULL AND EXISTS (
    SELECT FROM webhook_endpoints e WHERE e.merchant_id = w.merchant_id AND e.status = 'ENABLED' AND (
        SELECT d.next_attempt_at FROM webhook_deliveries d
        WHERE d.merchant_id = w.merchant_id AND d.endpoint_id = e.id AND d.next_attempt_at IS NOT NULL
        ORDER BY d.merchant_id, d.endpoint_id, d.next_attempt_at LIMIT 1
    ) <= w.clock_frozen_at)
LIMIT $1
"""

# The index holds only what is to be done. A frozen clock stops no bulk credit: it waits for nothing.
_TO_CREDIT: Final = """
SELECT DISTINCT merchant_id::text FROM bulk_credits WHERE status IN ('UPLOADED', 'PROCESSING') LIMIT $1
"""

_LAPSED: Final = """
SELECT l.merchant_id::text, l.key, l.expires_at FROM worlds w CROSS JOIN LATERAL (
    SELECT i.merchant_id, i.key, i.expires_at FROM idempotency_keys i WHERE i.merchant_id = w.merchant_id
        AND i.expires_at <= coalesce(w.clock_frozen_at, $1::timestamptz + w.clock_offset)
    ORDER BY i.merchant_id, i.expires_at LIMIT 1000
) l LIMIT $2
"""
# One key at a time: a DELETE with many is a join, which the planner may do by reading all keys. A key that was taken over by a
# new request meanwhile has another time to lapse.
_PURGE: Final = "DELETE FROM idempotency_keys WHERE merchant_id = $1 AND key = $2 AND expires_at = $3"
_PURGED_AT_ONCE: Final = 10_000

_PURGE_OPERATORS: Final = """
DELETE FROM operator_keys WHERE key = ANY (ARRAY(
    SELECT key FROM operator_keys WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2
)) AND expires_at <= $1
"""


async def due_merchants(now: datetime) -> list[str]:
    """Merchants with something due at the host's time `now`, at most a thousand at a time."""
    async with connection() as conn:
        return [record["merchant_id"] for record in await conn.fetch(_DUE, now, _AT_MOST)]


async def frozen_merchants_left_behind() -> list[str]:
    """Frozen merchants with a delivery that is due, at most a thousand."""
    async with connection() as conn:
        return [record["merchant_id"] for record in await conn.fetch(_LEFT_BEHIND, _AT_MOST)]


async def merchants_to_credit() -> list[str]:
    """Merchants with a bulk credit to be worked off, at most a thousand at a time."""
    async with connection() as conn:
        return [record["merchant_id"] for record in await conn.fetch(_TO_CREDIT, _AT_MOST)]


async def purge_lapsed_keys(now: datetime) -> None:
    """Delete idempotency keys, the operator's too, that lapsed before the host's time `now`, ten thousand each at most."""
    async with connection() as conn:
        lapsed = await conn.fetch(_LAPSED, now, _PURGED_AT_ONCE)
    await write_rows(lambda conn: conn.executemany(_PURGE, [tuple(record) for record in lapsed]))
    await write_alone(_PURGE_OPERATORS, now, _PURGED_AT_ONCE)


async def sweep_forever(advancer: Advancer, crediter: Crediter) -> None:
    """Sweep every half second; less often when that takes more than a tenth of the time, but every 5 seconds at least.

    Frozen worlds, which cost it nothing, are looked at once, when the leases of a worker before this one have lapsed.
    """
    purged = 0.0
    frozen_at: float | None = time.monotonic() + LEASE.total_seconds()
    while True:
        began = time.monotonic()
        try:
            merchants = await due_merchants(datetime.now(UTC))
            for merchant_id in merchants:
                advancer.wake(merchant_id)
            for merchant_id in await merchants_to_credit():
                crediter.wake(merchant_id)
            if not merchants:
                WORK_LAG.labels("payouts").set(0)
            if began - purged > PURGE_INTERVAL:
                await purge_lapsed_keys(datetime.now(UTC))
                purged = began
            if frozen_at is not None and began > frozen_at:
                for merchant_id in await frozen_merchants_left_behind():
                    advancer.wake(merchant_id)
                frozen_at = None
        except CONNECTION_ERRORS as error:
            _log.warning("sweep_lost", error=repr(error)[:300])
        except Exception:
            # A defect of ours, which must not end the loop: all merchants wait for it.
            _log.exception("sweep_failed")
        await asyncio.sleep(min(max(INTERVAL, 10 * (time.monotonic() - began)), _LONGEST_INTERVAL))
