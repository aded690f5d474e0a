"""Run units of work: claim → decide → write, in one short transaction, then notify.

Commands share transactions (`submit`). Less common operations with custom SQL run in their own transaction (`run`). Both take
the merchant's lock, apply the idempotency key, retry, and handle a COMMIT whose outcome is unknown.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from sandbox.domain.errors import Problem
from sandbox.domain.idempotency import checkpoint, execute, lookup, refuse, store
from sandbox.domain.scenario_engine import Catalogue
from sandbox.domain.scenario_runner import run_due_inline
from sandbox.domain.unit import Command, CommandResult, RequestContext, UnitOfWork
from sandbox.infrastructure.db.distributed.placement import node_of, shard_of
from sandbox.infrastructure.db.engine import transaction
from sandbox.infrastructure.large_work import LARGE_BATCH, compute
from sandbox.infrastructure.tasks import begin_task, retrieve_error
from sandbox.unit_of_work.batches import Batches
from sandbox.unit_of_work.claim import RESERVE_NO_IDS, ClaimRequest, claim
from sandbox.unit_of_work.in_flight import in_flight
from sandbox.unit_of_work.lock_turns import LockTurns
from sandbox.unit_of_work.notifier import Notifier
from sandbox.unit_of_work.spans import export_spans
from sandbox.unit_of_work.transaction import LOCK_TURN, with_retries
from sandbox.unit_of_work.write import write

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

T = TypeVar("T")
Prepare = Callable[["PoolConnectionProxy[Any]"], Awaitable[None]]
"""Slow work done in the transaction before the merchant is locked."""
Decide = Callable[["PoolConnectionProxy[Any]", UnitOfWork], Awaitable[T]]
"""Decide what to do with a claimed unit. May run SQL. Runs again if the transaction is retried."""
BeforeWrite = Callable[["PoolConnectionProxy[Any]", Sequence[UnitOfWork]], Awaitable[None]]
"""Runs between decide and write, for example to lease the deliveries that the units will insert."""
AfterWrite = Callable[["PoolConnectionProxy[Any]", T], Awaitable[None]]
"""Runs after the write, for example to claim the deliveries just written. Receives the result of `decide`."""
Action = Callable[["PoolConnectionProxy[Any]", UnitOfWork], Awaitable[CommandResult]]
"""A `Decide` for a request with an idempotency key. To refuse the request, it raises Problem before it writes anything."""
ResumableAction = Callable[["PoolConnectionProxy[Any]", UnitOfWork, bytes | None], Awaitable[CommandResult]]
"""One transaction of an action that takes several. Receives the last checkpoint."""

BATCH_LIMIT: Final = 256
QUEUE_LIMIT: Final = 10_000
"""The queue limit of processes without clients, such as workers. The API uses the setting SANDBOX_QUEUE_LIMIT."""
MERCHANTS_AT_ONCE: Final = 64
LARGE_COMMANDS: Final = 0x7073705F6C7267
""""psp_lrg": an advisory lock that a transaction with a large command holds."""


class NothingToDoError(Exception):
    """`decide` raises this to roll the transaction back. The run then returns `result`.

    A poll that finds nothing then costs no flush to disk and no ids. Polling must not change the ids of a seeded world.
    """

    def __init__(self, result: Any = None) -> None:
        super().__init__()
        self.result = result


class UnitOfWorkRunner:
    """Runs the units of work of one process."""

    def __init__(
        self,
        catalogue: Catalogue,
        notifier: Notifier,
        batch_limit: int = BATCH_LIMIT,
        queue_limit: int = QUEUE_LIMIT,
        merchants_at_once: int = MERCHANTS_AT_ONCE,
    ) -> None:
        self.catalogue = catalogue
        self.notifier = notifier
        self._turns = LockTurns(node_of)
        self._batches = Batches(
            self._run_batches, self._run_batch, batch_limit, queue_limit, merchants_at_once, self._turns, shard_of
        )
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run_transaction(
        self,
        wanted: ClaimRequest,
        decide: Decide[T],
        prepare: Prepare | None = None,
        before_write: BeforeWrite | None = None,
        after_write: AfterWrite[T] | None = None,
        lock_timeout: float | None = None,
        *,
        as_database_owner: bool = False,
    ) -> T:
        """Run one transaction for one merchant: claim → decide → write. Call the notifier after the COMMIT.

        Raises NOT_FOUND if the merchant was deleted, any exception raised by `decide`, and asyncpg's errors, among them
        LockNotAvailableError if it waits for a lock for more than `lock_timeout` seconds. If it raises, nothing was written,
        unless the connection broke during COMMIT.
        """
        started = time.perf_counter()
        try:
            async with transaction(wanted.merchant_id, lock_timeout, as_database_owner=as_database_owner) as conn:
                if prepare is not None:
                    await prepare(conn)
                units = await claim(conn, self.catalogue, [wanted])
                if not units:
                    raise Problem("NOT_FOUND", "This merchant was deleted.")
                unit = units[0]
                decided = await decide(conn, unit)
                run_due_inline(unit)
                if before_write is not None:
                    await before_write(conn, units)
                await self.notifier.notify_before_commit(unit)
                await write(conn, units, commit=after_write is None)
                if after_write is not None:
                    await after_write(conn, decided)
        except NothingToDoError as nothing:
            return cast(T, nothing.result)
        await self.notifier.notify_after_commit(unit)
        export_spans(units, started)
        return decided

    async def run_shared_transaction(
        self,
        wanted: Sequence[ClaimRequest],
        decide: Callable[[UnitOfWork], T],
        before_write: BeforeWrite | None = None,
        lock_timeout: float | None = None,
    ) -> dict[str, T]:
        """Run one transaction for several merchants of a shard. Return the decision for each merchant that could be locked.

        Merchants that were deleted have no entry, nor have those that are locked elsewhere, unless there is a `lock_timeout`.
        Raises any exception raised by `decide`, and asyncpg's errors, among them LockNotAvailableError if it waits for a lock
        for more than `lock_timeout` seconds; without it, LOCK_TURN seconds for other locks. If it raises, nothing was written
        for any merchant, unless the connection broke during COMMIT.
        """
        started = time.perf_counter()
        async with transaction(wanted[0].merchant_id, lock_timeout or LOCK_TURN) as conn:
            units = await claim(conn, self.catalogue, wanted, wait=lock_timeout is not None)
            if not units:
                return {}
            decided = {unit.merchant_id: decide(unit) for unit in units}
            for unit in units:
                run_due_inline(unit)
            if before_write is not None:
                await before_write(conn, units)
            for unit in units:
                await self.notifier.notify_before_commit(unit)
            await write(conn, units, commit=True)
        for unit in units:
            await self.notifier.notify_after_commit(unit)
        export_spans(units, started)
        return decided

    async def _run_batches(self, batches: Mapping[str, Sequence[Command]]) -> Mapping[str, Sequence[CommandResult]]:
        wanted = [_claim_of(merchant_id, commands) for merchant_id, commands in batches.items()]
        return await self.run_shared_transaction(wanted, lambda unit: _execute_all(unit, batches[unit.merchant_id]))

    async def _run_batch(self, merchant_id: str, commands: Sequence[Command]) -> Sequence[CommandResult]:
        is_large = any(command.needs.weight > LARGE_BATCH for command in commands)

        async def decide(_: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> Sequence[CommandResult]:
            return await compute(merchant_id, lambda: _execute_all(unit, commands), is_large=is_large)

        prepare = _wait_for_large_commands if is_large else None
        return await self.run_transaction(_claim_of(merchant_id, commands), decide, prepare, lock_timeout=LOCK_TURN)

    async def submit(self, command: Command) -> CommandResult:
        """Execute a command in a transaction that it shares with other commands. Raises the errors of `Batches.submit`."""
        return await self._batches.submit(command)

    async def run(self, context: RequestContext, action: Action, weight: int = 1) -> CommandResult:
        """Run an action once per key, under the merchant's lock. Its effect and the key's record commit together.

        Reserves ids for `weight` payouts. A concurrent request with the same key gets IDEMPOTENCY_KEY_IN_FLIGHT; in another
        process it waits for the first one's lock and returns its result. Raises NOT_FOUND if the merchant was deleted and
        UNAVAILABLE if PostgreSQL is unavailable. Cancelling the caller does not cancel the action.
        """

        async def alone() -> CommandResult:
            with in_flight(context.merchant_id, context.key):
                return await self.run_with_reserved_key(context, action, weight)

        return await self.run_to_completion(alone())

    async def run_resumable(
        self,
        context: RequestContext,
        action: ResumableAction,
        weight: int = 1,
        on_part: Callable[[CommandResult], None] = lambda _: None,
    ) -> CommandResult:
        """Like `run`, for actions that span several transactions. Runs the action again while its result is provisional.

        The action receives the last checkpoint: the body of the previous result or, for a retried key, the one stored before
        the process died. Without a key, a retry starts over. `on_part` is called with each result after its commit.
        """

        async def parts() -> CommandResult:
            last_checkpoint: bytes | None = None

            async def part(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
                return await action(conn, unit, checkpoint(unit, context) or last_checkpoint)

            with in_flight(context.merchant_id, context.key):
                while True:
                    result = await self.run_with_reserved_key(context, part, weight)
                    on_part(result)
                    if not result.provisional:
                        return result
                    last_checkpoint = result.body

        return await self.run_to_completion(parts())

    async def run_idempotent(self, context: RequestContext, work: Callable[[], Awaitable[CommandResult]]) -> CommandResult:
        """Run idempotent work, which opens its own transactions, and store its result under the key.

        If the key already has a result, return that instead. A provisional result is not stored, so a retry resumes the work.
        Raises the errors of `run` and of the work.
        """
        if context.key is None:
            return await work()
        with in_flight(context.merchant_id, context.key):
            result = await self.run_with_reserved_key(context, _no_result, RESERVE_NO_IDS)
            if result is not _NO_RESULT:
                return result
            done = await work()
            return done if done.provisional else await self.store(context, done)

    async def store(self, context: RequestContext, result: CommandResult) -> CommandResult:
        """Store under its key the result of a request that was executed elsewhere. Return the stored result."""

        async def stored(_: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            return result

        return await self.run_with_reserved_key(context, stored, RESERVE_NO_IDS)

    async def run_with_reserved_key(
        self,
        context: RequestContext,
        action: Action,
        weight: int = 1,
        prepare: Prepare | None = None,
        *,
        as_database_owner: bool = False,
    ) -> CommandResult:
        """Like `run`, but the caller holds the key's reservation (`in_flight`), across several transactions.

        If the key already has a result, the rows that `prepare` wrote are rolled back. Actions that delete a world's transfers
        and events need `as_database_owner`.
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

        wanted = ClaimRequest(context.merchant_id, weight, keys=() if key is None else (key.key,))

        async def transaction() -> CommandResult:
            return await self.run_transaction(wanted, decide, lock_timeout=LOCK_TURN, as_database_owner=as_database_owner)

        async def attempt() -> CommandResult:
            if prepare is None:
                return await self._turns.run(context.merchant_id, transaction)
            # Preparing takes up to minutes. It must not hold a place that other merchants need, and giving up its transaction
            # because the merchant is locked would waste it.
            return await self.run_transaction(wanted, decide, prepare, as_database_owner=as_database_owner)

        return await with_retries(attempt, retry_safe=key is not None)

    async def run_to_completion(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work to completion, even if the client disconnects and the handler is cancelled."""
        task = begin_task(self._tasks, work)
        task.add_done_callback(retrieve_error)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait until all accepted commands are committed or refused."""
        await self._batches.close()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _claim_of(merchant_id: str, commands: Sequence[Command]) -> ClaimRequest:
    """Return one claim for all the commands of a merchant."""
    needs = [command.needs for command in commands]
    return ClaimRequest(
        merchant_id,
        weight=sum(need.weight for need in needs),
        keys=[command.context.key.key for command in commands if command.context.key is not None],
        references=[reference for need in needs for reference in need.references],
        psp_references=[reference for need in needs for reference in need.psp_references],
        payout_ids=[payout_id for need in needs for payout_id in need.payout_ids],
        user_ids=[user_id for need in needs for user_id in need.user_ids],
    )


def _execute_all(unit: UnitOfWork, commands: Sequence[Command]) -> Sequence[CommandResult]:
    """Execute a merchant's commands in order.

    In a frozen world, each command's due steps run before the next command. Otherwise a result could depend on which requests
    happen to share a transaction.
    """
    results = []
    for command in commands:
        results.append(execute(unit, command))
        run_due_inline(unit)
    return results


async def _wait_for_large_commands(conn: "PoolConnectionProxy[Any]") -> None:
    """Wait for the large command of another process. Two at a time would leave no core of the database to small ones."""
    await conn.execute("SELECT pg_advisory_xact_lock($1)", LARGE_COMMANDS)


_NO_RESULT: Final = CommandResult(102, b"", provisional=True)


async def _no_result(_: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
    return _NO_RESULT
