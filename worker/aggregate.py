"""Poll the vendor feeds that are due, concurrently, so that one slow vendor does not delay the others."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from sandbox.infrastructure.db.engine import CONNECTION_ERRORS
from sandbox.infrastructure.live_feed import Note
from sandbox.users.aggregator.poll import Poller
from worker.merchant_tasks import MerchantTasks

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
        self._http = MerchantTasks("poll", MAX_HTTP_POLLS, self._poll)
        self._own = MerchantTasks("poll", MAX_OWN_POLLS, self._poll)

    async def run(self) -> None:
        """Look for due polls every second.

        If that takes more than 0.1 s, wait ten times as long as it took, up to 5 seconds.
        """
        while True:
            started = time.monotonic()
            try:
                http, own = await self._poller.due(2 * MAX_HTTP_POLLS, 2 * MAX_OWN_POLLS)
                for tasks, due in ((self._http, http), (self._own, own)):
                    for merchant_id in due:
                        tasks.wake(merchant_id)
            except CONNECTION_ERRORS as error:
                _log.warning("aggregate_interrupted", error=repr(error)[:300])
            except Exception:
                # A bug for one merchant must not end the loop that serves all of them.
                _log.exception("aggregate_failed")
            await asyncio.sleep(min(max(INTERVAL, 10 * (time.monotonic() - started)), _MAX_INTERVAL))

    async def stop(self, seconds: float) -> None:
        """Wait up to `seconds` for running polls, then cancel the rest. A cancelled poll runs again when its lease expires."""
        await asyncio.gather(self._http.stop(seconds), self._own.stop(seconds))

    async def _poll(self, merchant_id: str) -> bool:
        """Make a call, if one is due. Return whether it was made, because the vendor may have more pages."""
        was_made = await self._poller.poll(merchant_id)
        if was_made:
            self._on_fetched(merchant_id, [Note("aggregator.fetched", {})])
        return was_made
