"""Start attempts at endpoints with a rate limit at their slots, and never more in a second than the limit allows."""

import asyncio
from collections import deque
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from sandbox.webhooks.delivery.pacing import Slot

_MAX_ENDPOINTS: Final = 10_000


class StartTimes:
    """The start times of one process's attempts, by merchant and endpoint."""

    def __init__(self) -> None:
        self._recent: dict[tuple[str, str], deque[float]] = {}
        """The latest start times of each endpoint, as many as its rate limit, on the monotonic clock."""

    async def wait_for(self, merchant_id: str, endpoint_id: str, slot: Slot) -> None:
        """Wait for the slot. If this process has used up the rate limit in the past second, wait for the end of that second.

        That happens if the process was busy and several slots passed: their attempts must not start together with later ones.
        """
        recent = self._of(merchant_id, endpoint_id, slot.rate_limit)

        def seconds_left() -> float:
            until_slot = (slot.starts_at - datetime.now(UTC)).total_seconds()
            return max(until_slot, recent[0] + 1 - monotonic()) if len(recent) == slot.rate_limit else until_slot

        while (seconds := seconds_left()) > 0:  # noqa: ASYNC110 -- timers can fire early, and another call can take the turn
            await asyncio.sleep(seconds)
        recent.append(monotonic())

    def _of(self, merchant_id: str, endpoint_id: str, rate_limit: int) -> deque[float]:
        recent = self._recent.get((merchant_id, endpoint_id))
        if recent is None or recent.maxlen != rate_limit:
            if len(self._recent) >= _MAX_ENDPOINTS:
                self._recent.clear()
            recent = self._recent[merchant_id, endpoint_id] = deque(recent or (), maxlen=rate_limit)
        return recent
