"""Lease a merchant's clock, so that only one request at a time moves it. If the process dies, the lease expires within seconds.

The lease keeps responses consistent. Money does not depend on it: each change of a clock is a transaction under the merchant's
lock.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from piccolo.columns import Column
from piccolo.query.methods.update import Update
from tenacity import AsyncRetrying, retry_if_result, stop_after_delay, wait_exponential

from sandbox.domain.errors import Problem
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, RETRYABLE
from sandbox.infrastructure.tasks import end_tasks
from sandbox.unit_of_work.transaction import write_rows
from sandbox.worlds.merchants.tables import Merchants

_LEASE: Final = timedelta(seconds=4)
_RENEWAL_SECONDS: Final = 1.0
_WAIT_SECONDS: Final = 2.0
"""How long a request waits for another request's lease."""
_log = structlog.get_logger()


class ClockLeasedError(Problem):
    """INVALID_STATE: another request is moving the clock."""

    def __init__(self) -> None:
        super().__init__("INVALID_STATE", "Another request is moving this merchant's clock; wait for it to finish.")


@asynccontextmanager
async def clock_lease(merchant_id: str) -> AsyncIterator[None]:
    """Hold the lease of a merchant's clock during the block. Raises ClockLeasedError if it is not free within two seconds."""
    holder = str(uuid.uuid4())
    retry_until_acquired = AsyncRetrying(
        wait=wait_exponential(0.02, max=0.2),
        stop=stop_after_delay(_WAIT_SECONDS),
        retry=retry_if_result(lambda is_acquired: not is_acquired),
        retry_error_callback=lambda _: False,
    )
    if not await retry_until_acquired(_acquire, merchant_id, holder):
        raise ClockLeasedError
    renewal = asyncio.create_task(_renew(merchant_id, holder))
    try:
        yield
    finally:
        await end_tasks(renewal)
        with contextlib.suppress(*CONNECTION_ERRORS, *RETRYABLE):  # the lease expires by itself
            await write_rows(merchant_id, lambda _: _release(merchant_id, holder).run())


async def _acquire(merchant_id: str, holder: str) -> bool:
    return bool(await write_rows(merchant_id, lambda _: _lease(merchant_id, holder, datetime.now(UTC)).run()))


async def _renew(merchant_id: str, holder: str) -> None:
    while True:
        await asyncio.sleep(_RENEWAL_SECONDS)
        try:
            await _acquire(merchant_id, holder)
        except (*CONNECTION_ERRORS, *RETRYABLE) as error:
            _log.warning("clock_lease_renewal_failed", merchant_id=merchant_id, error=repr(error)[:300])


def _lease(merchant_id: str, holder: str, now: datetime) -> Update[Merchants]:
    m = Merchants
    is_free = m.clock_held_until.is_null() | (m.clock_held_until <= now) | (m.clock_held_by == holder)
    values: dict[Column | str, Any] = {m.clock_held_by: holder, m.clock_held_until: now + _LEASE}
    return m.update(values).where(m.merchant_id == merchant_id, is_free).returning(m.merchant_id)


def _release(merchant_id: str, holder: str) -> Update[Merchants]:
    m = Merchants
    values: dict[Column | str, Any] = {m.clock_held_by: None, m.clock_held_until: None}
    return m.update(values).where(m.merchant_id == merchant_id, m.clock_held_by == holder)
