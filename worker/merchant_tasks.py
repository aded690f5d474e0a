"""Background tasks by merchant: one per merchant, and a bounded number of batches at the same time."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from sandbox.domain.errors import Problem
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, RETRYABLE
from sandbox.infrastructure.tasks import end_tasks

_log = structlog.get_logger()


class MerchantTasks:
    """Run batches of one kind of work for each woken merchant, until a batch finds nothing more to do.

    `run_batch` takes a merchant's id and returns whether there may be more work. At most `max_concurrent` batches run at the
    same time. `name` begins the log events: `steps` logs `steps_interrupted` and `steps_failed`. After a failure the
    sweep wakes the merchant again.
    """

    def __init__(self, name: str, max_concurrent: int, run_batch: Callable[[str], Awaitable[object]]) -> None:
        self.stopping = False
        self._name = name
        self._run_batch = run_batch
        self._turns = asyncio.Semaphore(max_concurrent)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._woken: set[str] = set()
        """Merchants woken since their current batch began, which may have missed the new work."""

    def wake(self, merchant_id: str) -> None:
        """Run batches for the merchant, unless a task does so already."""
        if self.stopping:
            return
        if merchant_id in self._tasks:
            self._woken.add(merchant_id)
        else:
            self._tasks[merchant_id] = asyncio.create_task(self._run(merchant_id))

    async def stop(self, seconds: float) -> None:
        """Start no more batches, and wait up to `seconds` for the running ones to commit. Then cancel the rest."""
        self.stopping = True
        if self._tasks:
            _, late = await asyncio.wait(list(self._tasks.values()), timeout=seconds)
            await end_tasks(*late)

    async def _run(self, merchant_id: str) -> None:
        try:
            while not self.stopping:
                # One turn per batch: a merchant with a million rows does not block a merchant with ten.
                async with self._turns:
                    # Clear this only now: the batch serves all wake-ups that came while the task waited for its turn.
                    self._woken.discard(merchant_id)
                    more = await self._run_batch(merchant_id)
                if not more and merchant_id not in self._woken:
                    return
        except (*CONNECTION_ERRORS, *RETRYABLE) as error:
            _log.warning(f"{self._name}_interrupted", merchant_id=merchant_id, error=repr(error)[:300])
        except Problem:
            _log.info("merchant_gone", merchant_id=merchant_id)
        except Exception:
            _log.exception(f"{self._name}_failed", merchant_id=merchant_id)
        finally:
            del self._tasks[merchant_id]
            self._woken.discard(merchant_id)
