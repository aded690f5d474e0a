"""Run units of work: claim → decide → write, in one short transaction, then tell the notifier.

Commands that wait for one merchant commit together (`submit`). What is rare and needs SQL of its own runs alone (`run`).
Either way the merchant's lock, the idempotency key, retries and a COMMIT whose outcome is unknown are handled here.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import structlog

from sandbox.db.engine import CONNECTION_ERRORS, transaction
from sandbox.domain.errors import Problem, unavailable
from sandbox.domain.idempotency import checkpoint, execute, lookup, refuse, store
from sandbox.domain.scenario_engine import Catalogue
from sandbox.domain.scenario_runner import run_due_inline
from sandbox.domain.unit import Command, CommandResult, RequestContext, UnitOfWork
from sandbox.infrastructure.metrics import BATCH_SIZE
from sandbox.unit_of_work.claim import NO_IDS, Claim, claim
from sandbox.unit_of_work.in_flight import in_flight, release, reserve
from sandbox.unit_of_work.notifier import Notifier
from sandbox.unit_of_work.transaction import with_retries
from sandbox.unit_of_work.write import write

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

T = TypeVar("T")
Prepare = Callable[["PoolConnectionProxy[Any]"], Awaitable[None]]
"""What a transaction does before it claims: what takes long, and nobody needs to wait for."""
Decide = Callable[["PoolConnectionProxy[Any]", UnitOfWork], Awaitable[T]]
"""Decide in a claimed unit. It may run SQL of its own, and may run again after a rollback."""
AfterWrite = Callable[["PoolConnectionProxy[Any]", T], Awaitable[None]]
"""What a transaction does when all is written, such as claiming deliveries that it wrote itself; given what was decided."""
Action = Callable[["PoolConnectionProxy[Any]", UnitOfWork], Awaitable[CommandResult]]
"""A `Decide` under an idempotency key. Raises Problem to refuse, before it has written anything."""
Part = Callable[["PoolConnectionProxy[Any]", UnitOfWork, bytes | None], Awaitable[CommandResult]]
"""An `Action` of several transactions, with its checkpoint."""

BATCH_LIMIT: Final = 256
QUEUE_LIMIT: Final = 10_000
_log = structlog.get_logger()


class NothingToDoError(Exception):
    """Raised while deciding: roll the transaction back, and return `result`.

    So a look that finds nothing costs no flush to the disk and uses up none of the merchant's ids: how often workers look
    may not change the ids of a repeatable world.
    """

    def __init__(self, result: Any = None) -> None:
        super().__init__()
        self.result = result


@dataclass(slots=True)
class _Waiting:
    command: Command
    result: "asyncio.Future[CommandResult]"


class UnitsOfWork:
    """Runs the units of work of one process: at most one batch of a merchant at a time, a bounded queue for each."""

    def __init__(
        self, catalogue: Catalogue, notifier: Notifier, batch_limit: int = BATCH_LIMIT, queue_limit: int = QUEUE_LIMIT
    ) -> None:
        self.catalogue = catalogue
        self.notifier = notifier
        self._batch_limit = batch_limit
        self._queue_limit = queue_limit
        self._queues: dict[str, deque[_Waiting]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._weight = 0

    async def decide(
        self, wanted: Claim, decide: Decide[T], prepare: Prepare | None = None, after_write: AfterWrite[T] | None = None
    ) -> T:
        """One transaction for one merchant: claim → decide → write, and the notifier after the COMMIT.

        Raises NOT_FOUND if the merchant is gone, what `decide` raises, and asyncpg's errors. Nothing is written then, unless
        the connection broke during COMMIT.
        """
        try:
            async with transaction() as conn:
                if prepare is not None:
                    await prepare(conn)
                units = await claim(conn, self.catalogue, [wanted])
                if not units:
                    raise Problem("NOT_FOUND", "This merchant was deleted.")
                unit = units[0]
                decided = await decide(conn, unit)
                run_due_inline(unit)
                await write(conn, units)
                if after_write is not None:
                    await after_write(conn, decided)
                await self.notifier.committing(unit)
        except NothingToDoError as nothing:
            return cast(T, nothing.result)
        await self.notifier.committed(unit)
        return decided

    async def run_commands(self, merchant_id: str, commands: Sequence[Command]) -> list[CommandResult]:
        """Decide commands of one merchant in order, in one transaction. Raises as `decide` does."""

        async def decide(_: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> list[CommandResult]:
            return [execute(unit, command) for command in commands]

        needs = [command.needs for command in commands]
        wanted = Claim(
            merchant_id,
            weight=sum(need.weight for need in needs),
            keys=[command.context.key.key for command in commands if command.context.key is not None],
            references=[reference for need in needs for reference in need.references],
            payout_ids=[payout_id for need in needs for payout_id in need.payout_ids],
            user_ids=[user_id for need in needs for user_id in need.user_ids],
        )
        return await self.decide(wanted, decide)

    async def submit(self, command: Command) -> CommandResult:
        """Wait for the command's turn among its merchant's, and return its result.

        Raises IDEMPOTENCY_KEY_IN_FLIGHT if its key is under way here, and UNAVAILABLE if the queue is full or
        PostgreSQL is away. A caller that is cancelled does not take its command back: it is committed or not.
        """
        merchant_id, weight = command.context.merchant_id, command.needs.weight
        if self._weight + weight > self._queue_limit and self._weight > 0:
            raise unavailable("Too many requests are waiting. Nothing was done: retry.")
        reserve(merchant_id, command.context.key)
        future: asyncio.Future[CommandResult] = asyncio.get_running_loop().create_future()
        self._weight += weight
        queue = self._queues.get(merchant_id)
        if queue is None:
            queue = self._queues[merchant_id] = deque()
            self._begin(self._drain(merchant_id, queue))
        queue.append(_Waiting(command, future))
        # The caller may be gone by then; the key stays reserved until the batch has ended all the same.
        future.add_done_callback(_mark_seen)
        return await asyncio.shield(future)

    async def run(self, context: RequestContext, action: Action, weight: int = 1) -> CommandResult:
        """Run an action once for its key, under the merchant's lock; its effect and the key's record commit together.

        `weight` reserves ids as for so many payouts. A second request with the key gets IDEMPOTENCY_KEY_IN_FLIGHT; in another
        process it waits for the lock of the first one, and repeats its result. Raises NOT_FOUND if the merchant is gone,
        UNAVAILABLE if PostgreSQL is away. A caller that is cancelled does not take the action back.
        """

        async def alone() -> CommandResult:
            with in_flight(context.merchant_id, context.key):
                return await self.run_part(context, action, weight)

        return await self.finish(alone())

    async def run_parts(
        self, context: RequestContext, action: Part, weight: int = 1, on_part: Callable[[CommandResult], None] = lambda _: None
    ) -> CommandResult:
        """As `run`, for what takes several transactions: the action runs again as long as its result is provisional.

        It is given the checkpoint, which is the body of the result before: under the key, one that an earlier request with
        this key left behind when its process died. Without a key, such a request begins anew. `on_part` is called with each
        result after its commit.
        """

        async def parts() -> CommandResult:
            before: bytes | None = None

            async def part(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
                return await action(conn, unit, checkpoint(unit, context) or before)

            with in_flight(context.merchant_id, context.key):
                while True:
                    result = await self.run_part(context, part, weight)
                    on_part(result)
                    if not result.provisional:
                        return result
                    before = result.body

        return await self.finish(parts())

    async def run_repeatable(self, context: RequestContext, work: Callable[[], Awaitable[CommandResult]]) -> CommandResult:
        """Do work that has transactions of its own and may be done twice without harm, unless its key has a result already.

        Its result is stored under the key afterwards, unless it is provisional: repeated, the request continues. Raises as
        `run`, and what the work raises.
        """
        if context.key is None:
            return await work()
        with in_flight(context.merchant_id, context.key):
            result = await self.run_part(context, _no_result, NO_IDS)
            if result is not _NO_RESULT:
                return result
            done = await work()
            return done if done.provisional else await self.store(context, done)

    async def store(self, context: RequestContext, result: CommandResult) -> CommandResult:
        """Store the result of a request that was executed elsewhere under its key; returns what is stored there then."""

        async def stored(_: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            return result

        return await self.run_part(context, stored, NO_IDS)

    async def run_part(
        self, context: RequestContext, action: Action, weight: int = 1, prepare: Prepare | None = None
    ) -> CommandResult:
        """As `run`, for a caller that reserves the key itself (`in_flight`), through several transactions.

        What `prepare` wrote is rolled back if the key has a result already.
        """
        key = context.key

        async def decide(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            result = lookup(unit, context)
            if result is not None and prepare is not None:
                raise NothingToDoError(result)
            if result is None:
                try:
                    result = await action(conn, unit)
                except Problem as problem:
                    result = refuse(problem, context, stored=True)
                if result is not _NO_RESULT:
                    store(unit, context, result)
            return result

        wanted = Claim(context.merchant_id, weight, keys=() if key is None else (key.key,))
        return await with_retries(lambda: self.decide(wanted, decide, prepare), repeatable=key is not None)

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work that goes on to its end even if the client leaves, which cancels the handler that waits for it."""
        return await asyncio.shield(self._begin(work))

    async def close(self) -> None:
        """Wait until all that was accepted is committed or refused."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _drain(self, merchant_id: str, queue: deque[_Waiting]) -> None:
        try:
            while queue:
                batch: list[_Waiting] = []
                weight = 0
                while queue and (not batch or weight + queue[0].command.needs.weight <= self._batch_limit):
                    waiting = queue.popleft()
                    weight += waiting.command.needs.weight
                    batch.append(waiting)
                BATCH_SIZE.labels("api").observe(weight)
                try:
                    await self._run(merchant_id, batch)
                finally:
                    self._weight -= weight
                    for waiting in batch:
                        release(merchant_id, waiting.command.context.key)
        finally:
            # No await between the last look at the queue and here, so no command can slip in unseen.
            del self._queues[merchant_id]

    async def _run(self, merchant_id: str, batch: list[_Waiting]) -> None:
        """Run a batch; one that fails because of its own data is halved until the command at fault is alone."""
        commands = [waiting.command for waiting in batch]
        repeatable = all(command.context.key is not None for command in commands)
        try:
            results = await with_retries(lambda: self.run_commands(merchant_id, commands), repeatable=repeatable)
        except Problem as problem:
            if isinstance(problem.__cause__, CONNECTION_ERRORS):
                _log.warning("batch_lost", merchant_id=merchant_id, size=len(batch), error=repr(problem.__cause__)[:300])
            _fail(batch, problem)
        except Exception as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._run(merchant_id, batch[:middle])
                await self._run(merchant_id, batch[middle:])
                return
            _log.exception("command_failed", merchant_id=merchant_id, request_id=commands[0].context.request_id)
            _fail(batch, error)
        else:
            for waiting, result in zip(batch, results, strict=True):
                if not waiting.result.done():
                    waiting.result.set_result(result)


_NO_RESULT: Final = CommandResult(102, b"", provisional=True)


async def _no_result(_: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
    return _NO_RESULT


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.result.done():
            waiting.result.set_exception(error)


def _mark_seen(future: "asyncio.Future[CommandResult]") -> None:
    """Mark an error as seen, for a caller that left."""
    if not future.cancelled():
        future.exception()
