"""arq's worker, which looks into its queue when it is notified of a job, instead of fifty times a second."""

import asyncio
from typing import Final

from arq.worker import Worker

from sandbox.infrastructure.wake import JOB_NOTIFICATIONS

_BUSY_SECONDS: Final = 0.02
_IDLE_SECONDS: Final = 0.5
"""How often it looks without one: a lost notification, and arq's cron jobs, wait no longer than this."""
_NOTIFICATIONS: Final = 1000


class JobNotificationWorker(Worker):
    """A worker on the pool that it is given. Ends with RedisError or OSError when Redis goes away."""

    async def main(self) -> None:
        """Work until it is cancelled; in place of arq's own loop, which only polls."""
        self.ctx["redis"] = self.pool
        async with self.pool.pubsub(ignore_subscribe_messages=True) as notifications:
            await notifications.subscribe(JOB_NOTIFICATIONS)
            while True:
                await self._poll_iteration()
                # Nothing notifies of a job that ends, which lets one that waits begin.
                if await notifications.get_message(timeout=_BUSY_SECONDS if self.tasks else _IDLE_SECONDS) is not None:
                    for _ in range(_NOTIFICATIONS):
                        # One look serves all notifications until now.
                        if await notifications.get_message(timeout=0) is None:
                            break

    async def close(self) -> None:
        """Cancel the jobs under way, and close the connections."""
        # arq's own ends with the CancelledError of a job that it cancels, and leaves the connections open.
        for job in self.tasks.values():
            job.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        await self.pool.aclose(close_connection_pool=True)
