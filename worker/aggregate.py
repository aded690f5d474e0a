"""Poll the vendor feeds that are due, concurrently, so that one slow vendor does not delay the others."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, RETRYABLE
from sandbox.infrastructure.live_feed import Note
from sandbox.infrastructure.tasks import end_tasks
from sandbox.users.aggregator.poll import Poller

INTERVAL: Final = 1.0
_MAX_INTERVAL: Final = 5.0
"""Upper bound of the interval. A slow query may have waited for a connection, or the whole machine may have paused."""
MAX_HTTP_POLLS: Final = 128
"""Concurrent calls to vendors, one per merchant. Each holds a page of up to 2 MiB; a vendor that hangs holds it for 15 s."""
MAX_OWN_POLLS: Final = 8
"""Concurrent reads of our own feed. They never hang, so they have separate slots and do not queue behind vendors."""
_log = structlog.get_logger()


class AggregateLoop:
    """Find polls that are due and run them, with at most one task per merchant in this process."""

    def __init__(self, poller: Poller, on_fetched: Callable[[str, Sequence[Note]], None]) -> None:
        """`on_fetched` receives the merchant and a note for the live feed after each call to a vendor."""
        self._poller = poller
        self._on_fetched = on_fetched
        self._http: dict[str, asyncio.Task[None]] = {}
        self._own: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look for due polls every second.

        If that takes more than 0.1 s, wait ten times as long as it took, up to 5 seconds.
        """
        while True:
            started = time.monotonic()
            try:
                http, own = await self._poller.due(2 * MAX_HTTP_POLLS, 2 * MAX_OWN_POLLS)
                self._start(self._http, http, MAX_HTTP_POLLS)
                self._start(self._own, own, MAX_OWN_POLLS)
            except CONNECTION_ERRORS as error:
                _log.warning("aggregate_interrupted", error=repr(error)[:300])
            except Exception:
                # A bug for one merchant must not end the loop that serves all of them.
                _log.exception("aggregate_failed")
            await asyncio.sleep(min(max(INTERVAL, 10 * (time.monotonic() - started)), _MAX_INTERVAL))

    async def stop(self, seconds: float) -> None:
        """Wait up to `seconds` for running polls, then cancel the rest. A cancelled poll runs again when its lease expires."""
        if tasks := [*self._http.values(), *self._own.values()]:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            await end_tasks(*late)

    def _start(self, tasks: dict[str, asyncio.Task[None]], due: Sequence[str], limit: int) -> None:
        for merchant_id in due:
            if merchant_id not in tasks and len(tasks) < limit:
                tasks[merchant_id] = asyncio.create_task(self._poll(merchant_id, tasks))

    async def _poll(self, merchant_id: str, tasks: dict[str, asyncio.Task[None]]) -> None:
        try:
            # Poll while there are more pages and the vendor's rate limit allows it: five times at most.
            while await self._poller.poll(merchant_id):
                self._on_fetched(merchant_id, [Note("aggregator.fetched", {})])
        except (*CONNECTION_ERRORS, *RETRYABLE) as error:
            _log.warning("poll_interrupted", merchant_id=merchant_id, error=repr(error)[:300])
        except Exception:
            _log.exception("poll_failed", merchant_id=merchant_id)
        finally:
            del tasks[merchant_id]
