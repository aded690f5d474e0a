"""Hold a merchant's rows locked, as a session of psql would."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg

from tests.harness.world import Stack, World

WORLDS = "SELECT FROM worlds WHERE merchant_id = ANY ($1::uuid[]) FOR UPDATE"
"""The rows that every unit of work locks first."""
ACCOUNTS = "SELECT FROM accounts WHERE merchant_id = ANY ($1::uuid[]) FOR UPDATE"
"""Rows that a unit of work locks only when it writes."""
_WAITING = "SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))"


class Locks:
    """The locks of one session."""

    def __init__(self, stack: Stack, session: int) -> None:
        self._stack = stack
        self._session = session

    def awaited(self) -> bool:
        """Return whether another session waits for these locks."""
        return bool(self._stack.execute(_WAITING, self._session))


def locked_elsewhere(stack: Stack, worlds: Sequence[World], statement: str = WORLDS) -> AbstractAsyncContextManager[Locks]:
    """Lock these merchants' rows, by one of the statements above, until the block ends."""
    return lock_held(stack, statement, [world.merchant_id for world in worlds])


@asynccontextmanager
async def lock_held(stack: Stack, statement: str, argument: object) -> AsyncIterator[Locks]:
    """Hold what a statement locks until the block ends."""
    holder = await asyncpg.connect(stack.database_url)
    try:
        async with holder.transaction():
            await holder.execute(statement, argument)
            yield Locks(stack, holder.get_server_pid())
    finally:
        await holder.close()
