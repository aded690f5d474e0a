"""Something rare that a merchant asks for, done by SQL of its own under the merchant's lock and an idempotency key.

What is frequent goes through the queues of `sandbox.unit_of_work.loop` instead, where requests share a transaction.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from sandbox.db.engine import CONNECTION_ERRORS, RETRYABLE, away, transaction
from sandbox.domain.errors import CONTENTION, Problem, unavailable
from sandbox.domain.idempotency import keep, recall, refuse
from sandbox.domain.scenario_runner import run_due_inline
from sandbox.domain.unit import CommandResult, IdempotencyKey, RequestContext, UnitOfWork
from sandbox.scenarios.builtin import load_catalogue
from sandbox.unit_of_work.committed import committed
from sandbox.unit_of_work.in_flight import in_flight
from sandbox.unit_of_work.loop import ATTEMPTS
from sandbox.unit_of_work.store import lock_merchant, read_claim, write_unit

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Action = Callable[["PoolConnectionProxy[Any]", UnitOfWork], Awaitable[CommandResult]]
"""Do it, in the transaction and at the unit's now. May run again after a rollback. Raises Problem to refuse, before it
has written anything."""

_NO_IDS: Final = -1
"""The weight of a unit that makes none: in a repeatable world, those of later requests stay what they were."""
_NOTHING_YET: Final = CommandResult(102, b"", provisional=True)
_under_way: Final[set[asyncio.Task[CommandResult]]] = set()


async def run_keyed(
    merchant_id: str, key: IdempotencyKey | None, origin: RequestContext, action: Action, weight: int = 1
) -> CommandResult:
    """Run an action once for its key, holding the merchant's lock; its effect and the key's record commit together.

    `weight` reserves ids as for so many payouts.

    A second request with the key is told IDEMPOTENCY_KEY_IN_FLIGHT; in another process it waits for the first one's lock, and
    repeats its answer. Raises NOT_FOUND if the merchant is gone, UNAVAILABLE if PostgreSQL is away. A caller that is
    cancelled does not take the action back.
    """

    async def alone() -> CommandResult:
        with in_flight(merchant_id, key):
            return await run_part(merchant_id, key, origin, action, weight)

    return await to_the_end(alone())


async def run_repeatable(
    merchant_id: str, key: IdempotencyKey | None, origin: RequestContext, work: Callable[[], Awaitable[CommandResult]]
) -> CommandResult:
    """Do work that has transactions of its own and may be done twice without harm, unless its key has an answer already.

    Its answer is stored under the key afterwards, unless it is provisional: repeated, the request goes on. Raises as
    `run_keyed`, and what the work raises.
    """
    if key is None:
        return await work()

    async def known(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
        return _NOTHING_YET

    with in_flight(merchant_id, key):
        answer = await run_part(merchant_id, key, origin, known, _NO_IDS)
        if answer is not _NOTHING_YET:
            return answer
        done = await work()
        if done.provisional:
            return done

        async def kept(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            return done

        return await run_part(merchant_id, key, origin, kept, _NO_IDS)


async def to_the_end(work: Coroutine[Any, Any, CommandResult]) -> CommandResult:
    """Do work that goes on though a client that goes away cancels the handler that waits for it."""
    task = asyncio.create_task(work)
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    return await asyncio.shield(task)


async def run_part(
    merchant_id: str, key: IdempotencyKey | None, origin: RequestContext, action: Action, weight: int = 1
) -> CommandResult:
    """As `run_keyed`, for a caller that holds the key itself, through several transactions, and goes `to_the_end`.

    An answer that is provisional is not the last one: `progress` tells the next part of it.
    """
    for attempt in range(ATTEMPTS):
        try:
            return await _once(merchant_id, key, origin, action, weight)
        except RETRYABLE:
            if attempt == ATTEMPTS - 1:
                raise unavailable(f"{CONTENTION} Nothing was done.") from None
        except CONNECTION_ERRORS as error:
            # Lost in the COMMIT, it may have happened: only a key makes it safe to repeat.
            if key is None or attempt == ATTEMPTS - 1:
                raise away(error) from error
            await asyncio.sleep(0.05 * 2**attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


async def _once(
    merchant_id: str, key: IdempotencyKey | None, origin: RequestContext, action: Action, weight: int
) -> CommandResult:
    async with transaction() as conn:
        unit = await lock_merchant(conn, merchant_id, weight)
        await read_claim(conn, unit, keys=[] if key is None else [key.key])
        answer = recall(unit, key, origin)
        if answer is None:
            try:
                answer = await action(conn, unit)
            except Problem as problem:
                answer = refuse(problem, origin, key)
            keep(unit, key, answer)
            run_due_inline(unit, load_catalogue())
            await write_unit(conn, unit)
    committed(unit)
    return answer
