"""The loop that does a merchant's work: claim → decide → write.

Requests of one merchant that are in flight together commit together. No timer gathers them: while one batch commits,
the next one fills.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from sandbox.db.engine import CONNECTION_ERRORS, RETRYABLE, away, transaction
from sandbox.domain.errors import CONTENTION, Problem, unavailable
from sandbox.domain.idempotency import execute
from sandbox.domain.scenario_runner import run_due_inline
from sandbox.domain.unit import Command, CommandResult, UnitOfWork
from sandbox.infrastructure.metrics import BATCH_SIZE
from sandbox.scenarios.builtin import load_catalogue
from sandbox.unit_of_work.committed import committed
from sandbox.unit_of_work.in_flight import hold, release
from sandbox.unit_of_work.store import lock_merchant, read_claim, write_unit

ATTEMPTS: Final = 3
_log = structlog.get_logger()


async def run_commands(merchant_id: str, commands: Sequence[Command]) -> tuple[list[CommandResult], UnitOfWork]:
    """Decide commands of one merchant in order, in one transaction, and return their answers.

    Raises asyncpg's errors; then nothing was written (or, if the connection was lost in the COMMIT, perhaps all was).
    """
    async with transaction() as conn:
        unit = await lock_merchant(conn, merchant_id, sum(command.weight for command in commands))
        await read_claim(
            conn,
            unit,
            keys=[command.key.key for command in commands if command.key is not None],
            references=[reference for command in commands for reference in command.references],
            payout_ids=[payout_id for command in commands for payout_id in command.payout_ids],
            user_ids=[user_id for command in commands for user_id in command.user_ids],
        )
        answers = [execute(unit, command) for command in commands]
        run_due_inline(unit, load_catalogue())
        await write_unit(conn, unit)
    committed(unit)
    return answers, unit


@dataclass(slots=True)
class _Waiting:
    command: Command
    answer: "asyncio.Future[CommandResult]"


class MerchantQueues:
    """The commands that wait, a bounded queue a merchant; at most one batch of a merchant is under way in this process."""

    def __init__(self, batch_limit: int, queue_limit: int, committed: Callable[[UnitOfWork], None] = lambda unit: None) -> None:
        self._batch_limit = batch_limit
        self._queue_limit = queue_limit
        self._committed = committed
        self._queues: dict[str, deque[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._weight = 0

    async def submit(self, merchant_id: str, command: Command) -> CommandResult:
        """Wait for the command's turn and return its answer.

        Raises IDEMPOTENCY_KEY_IN_FLIGHT if its key is under way here, and UNAVAILABLE if the queue is full or
        PostgreSQL is away. A caller that is cancelled does not take its command back: it is committed or not.
        """
        if self._weight + command.weight > self._queue_limit and self._weight > 0:
            raise unavailable("Too many requests are waiting. Nothing was done: retry.")
        hold(merchant_id, command.key)
        future: asyncio.Future[CommandResult] = asyncio.get_running_loop().create_future()
        self._weight += command.weight
        queue = self._queues.get(merchant_id)
        if queue is None:
            queue = self._queues[merchant_id] = deque()
            task = asyncio.create_task(self._drain(merchant_id, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        queue.append(_Waiting(command, future))
        # Whoever asked may be gone by then; the key stays held until the batch has ended all the same.
        future.add_done_callback(_swallow)
        return await asyncio.shield(future)

    async def close(self) -> None:
        """Wait until all that was accepted is committed or refused."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _drain(self, merchant_id: str, queue: deque[_Waiting]) -> None:
        try:
            while queue:
                batch: list[_Waiting] = []
                weight = 0
                while queue and (not batch or weight + queue[0].command.weight <= self._batch_limit):
                    waiting = queue.popleft()
                    weight += waiting.command.weight
                    batch.append(waiting)
                BATCH_SIZE.labels("api").observe(weight)
                try:
                    await self._run(merchant_id, batch)
                finally:
                    self._weight -= weight
                    for waiting in batch:
                        release(merchant_id, waiting.command.key)
        finally:
            # No await between the last look at the queue and here, so no command can slip in unseen.
            del self._queues[merchant_id]

    async def _run(self, merchant_id: str, batch: list[_Waiting]) -> None:
        """Run a batch; one that fails by its own data is halved until the one at fault is alone."""
        try:
            answers, unit = await _with_retries(merchant_id, [waiting.command for waiting in batch])
        except Problem as problem:
            _fail(batch, problem)
        except CONNECTION_ERRORS as error:
            _log.warning("batch_lost", merchant_id=merchant_id, size=len(batch), error=repr(error)[:300])
            _fail(batch, away(error))
        except Exception as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._run(merchant_id, batch[:middle])
                await self._run(merchant_id, batch[middle:])
                return
            _log.exception("command_failed", merchant_id=merchant_id, request_id=batch[0].command.origin.request_id)
            _fail(batch, error)
        else:
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)
            with contextlib.suppress(Exception):
                self._committed(unit)


async def _with_retries(merchant_id: str, commands: Sequence[Command]) -> tuple[list[CommandResult], UnitOfWork]:
    """Run commands, again when another transaction was in the way or the connection was lost.

    A connection that is lost in its COMMIT leaves open whether it happened. Commands with keys may then be repeated: the
    key finds the first outcome if there was one. One without a key is never repeated after a loss.
    """
    repeatable = all(command.key is not None for command in commands)
    for attempt in range(ATTEMPTS):
        try:
            return await run_commands(merchant_id, commands)
        except RETRYABLE:
            if attempt == ATTEMPTS - 1:
                raise unavailable(f"{CONTENTION} Nothing was done.") from None
        except CONNECTION_ERRORS:
            if not repeatable or attempt == ATTEMPTS - 1:
                raise
            await asyncio.sleep(0.05 * 2**attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)


def _swallow(future: "asyncio.Future[CommandResult]") -> None:
    """Mark an error as seen, for a caller that left."""
    if not future.cancelled():
        future.exception()
