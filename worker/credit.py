"""Work off bulk credits, chunk by chunk, for the merchants that have one."""

import asyncio
from typing import Final

import structlog

from sandbox.bulk_credit.process import credit_chunk, fail_listed_users
from sandbox.db.engine import CONNECTION_ERRORS, RETRYABLE
from sandbox.domain.errors import Problem
from sandbox.unit_of_work.runner import UnitsOfWork

AT_ONCE: Final = 2
"""Merchants worked for side by side; each needs a connection for most of the time."""
_log = structlog.get_logger()


class Crediter:
    """Works for the merchants that it is woken for, each by at most one task of this process."""

    def __init__(self, work: UnitsOfWork) -> None:
        self._work = work
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._stopping = False

    def wake(self, merchant_id: str) -> None:
        """The merchant may have a bulk credit to do. One that comes while its last chunk ends is found by the sweep."""
        if not self._stopping and merchant_id not in self._tasks:
            self._tasks[merchant_id] = asyncio.create_task(self._credit(merchant_id))

    async def stop(self, seconds: float) -> None:
        """Begin no chunk more, and let the ones under way commit."""
        self._stopping = True
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=seconds)

    async def _credit(self, merchant_id: str) -> None:
        try:
            more = True
            while more and not self._stopping:
                # A turn for each chunk, so that a file of a million rows holds up nobody else's small one.
                async with self._turn:
                    more = await credit_chunk(self._work, merchant_id, fail_listed_users())
        except (*CONNECTION_ERRORS, *RETRYABLE) as error:
            _log.warning("credit_lost", merchant_id=merchant_id, error=repr(error)[:300])
        except Problem:
            _log.info("merchant_gone", merchant_id=merchant_id)
        except Exception:
            _log.exception("credit_failed", merchant_id=merchant_id)
        finally:
            del self._tasks[merchant_id]
