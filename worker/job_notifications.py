"""An arq worker that reads its queue when notified of a job, instead of polling it fifty times a second."""

import asyncio
from typing import Final

from arq.worker import Worker

from sandbox.infrastructure.wake import JOB_NOTIFICATIONS

_BUSY_SECONDS: Final = 0.02
_IDLE_SECONDS: Final = 0.5
"""Poll interval without notifications. It bounds the delay of arq's cron jobs, and of a job whose notification was lost."""
_MAX_NOTIFICATIONS: Final = 1000


class JobNotificationWorker(Worker):
    """An arq worker on a given pool. It raises RedisError or OSError when Redis becomes unavailable."""

    async def main(self) -> None:
        """Run jobs until cancelled. Replaces arq's own loop, which only polls."""
        self.ctx["redis"] = self.pool
        async with self.pool.pubsub(ignore_subscribe_messages=True) as notifications:
            await notifications.subscribe(JOB_NOTIFICATIONS)
            while True:
                await self._poll_iteration()
                # The end of a job frees a slot for a queued one but sends no notification, so poll while jobs run.
                if await notifications.get_message(timeout=_BUSY_SECONDS if self.tasks else _IDLE_SECONDS) is not None:
                    for _ in range(_MAX_NOTIFICATIONS):
                        # Drop the notifications received so far: the next poll serves them all.
                        if await notifications.get_message(timeout=0) is None:
                            break

    async def close(self) -> None:
        """Cancel the running jobs, and close the connections."""
        # arq's own `close` raises the CancelledError of the first job it cancels, and leaves the connections open.
        for job in self.tasks.values():
            job.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        await self.pool.aclose(close_connection_pool=True)
