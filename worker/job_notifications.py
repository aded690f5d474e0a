"""arq's worker, which looks into its queue when a wake rings, instead of fifty times a second."""

import asyncio
from typing import Final

from arq.worker import Worker

from sandbox.infrastructure.wake import DOORBELL

_BUSY_SECONDS: Final = 0.02
_IDLE_SECONDS: Final = 0.5
"""How often it looks all the same: a ring that nobody heard, and arq's cron jobs, cost no more than this."""
_RINGS: Final = 1000


class JobNotificationWorker(Worker):
    """A worker on the pool that it is given. Ends with RedisError or OSError when Redis goes away."""

    async def main(self) -> None:
        """Work until it is cancelled; in the place of arq's own loop, which does nothing else but to wait by the clock."""
        self.ctx["redis"] = self.pool
        async with self.pool.pubsub(ignore_subscribe_messages=True) as bell:
            await bell.subscribe(DOORBELL)
            while True:
                await self._poll_iteration()
                # Jobs end without a ring, and make room for those that wait behind them.
                if await bell.get_message(timeout=_BUSY_SECONDS if self.tasks else _IDLE_SECONDS) is not None:
                    for _ in range(_RINGS):
                        # One look serves all that have rung until now.
                        if await bell.get_message(timeout=0) is None:
                            break

    async def close(self) -> None:
        """Cancel the jobs under way, and close the connections."""
        # arq's own ends with the CancelledError of a job that it cancels, and leaves the connections open.
        for job in self.tasks.values():
            job.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        await self.pool.aclose(close_connection_pool=True)
