"""Poll the vendors' feeds that are due, side by side: one slow vendor delays no other merchant's."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import structlog

from sandbox.aggregator.poll import Poller
from sandbox.db.engine import CONNECTION_ERRORS, RETRYABLE
from sandbox.infrastructure.tasks import end_tasks

INTERVAL: Final = 1.0
_LONGEST_INTERVAL: Final = 5.0
"""Whatever a look took: it may have waited for a connection, or stood still with the machine."""
HTTP_AT_ONCE: Final = 128
"""Calls to vendors under way, one a merchant; each holds a page of 2 MiB at most. A vendor that hangs holds its call 15 s."""
OWN_AT_ONCE: Final = 8
"""Reads of our own feed under way. They hang for nobody, so they do not wait for calls that do."""
_log = structlog.get_logger()


class AggregateLoop:
    """Looks for polls that are due, and makes them; each merchant's in at most one task of this process."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._http: dict[str, asyncio.Task[None]] = {}
        self._own: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look every second; less often when that takes more than a tenth of the time, but every 5 seconds at least."""
        while True:
            began = time.monotonic()
            try:
                http, own = await self._poller.due(2 * HTTP_AT_ONCE, 2 * OWN_AT_ONCE)
                self._begin(self._http, http, HTTP_AT_ONCE)
                self._begin(self._own, own, OWN_AT_ONCE)
            except CONNECTION_ERRORS as error:
                _log.warning("aggregate_lost", error=repr(error)[:300])
            except Exception:
                # A defect of ours, which must not end the loop: all merchants wait for it.
                _log.exception("aggregate_failed")
            await asyncio.sleep(min(max(INTERVAL, 10 * (time.monotonic() - began)), _LONGEST_INTERVAL))

    async def stop(self, seconds: float) -> None:
        """Let the calls under way end; what does not is asked for again when its lease has lapsed."""
        if tasks := [*self._http.values(), *self._own.values()]:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            await end_tasks(*late)

    def _begin(self, tasks: dict[str, asyncio.Task[None]], due: Sequence[str], at_once: int) -> None:
        for merchant_id in due:
            if merchant_id not in tasks and len(tasks) < at_once:
                tasks[merchant_id] = asyncio.create_task(self._poll(merchant_id, tasks))

    async def _poll(self, merchant_id: str, tasks: dict[str, asyncio.Task[None]]) -> None:
        try:
            # As long as there are pages and the limit allows it, which is five times at most.
            while await self._poller.poll(merchant_id):
                pass
        except (*CONNECTION_ERRORS, *RETRYABLE) as error:
            _log.warning("poll_lost", merchant_id=merchant_id, error=repr(error)[:300])
        except Exception:
            _log.exception("poll_failed", merchant_id=merchant_id)
        finally:
            del tasks[merchant_id]
