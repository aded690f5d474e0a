"""Transactions that write outside a merchant's unit of work, and the retries of all transactions that write."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sandbox.domain.errors import CONTENTION, unavailable
from sandbox.infrastructure.db.distributed.placement import shard_of
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, RETRYABLE, Owner, connection, database_unavailable, transaction

if TYPE_CHECKING:
    from asyncpg import Record
    from asyncpg.pool import PoolConnectionProxy

ATTEMPTS: Final = 3
LOCK_TURN: Final = 0.5
"""Seconds that a merchant may wait for a lock before it must give its connection to the next merchant."""
T = TypeVar("T")


async def write_rows(owner: Owner, body: Callable[["PoolConnectionProxy[Any]"], Awaitable[T]]) -> T:
    """Write rows that the merchant's lock does not protect (webhook attempts, a vendor's pages) in one transaction.

    Returns the result of the body. Raises the errors of the body, after rolling back, and CONNECTION_ERRORS.
    """
    async with transaction(owner) as conn:
        return await body(conn)


async def execute_in_own_transaction(merchant_id: str, statement: str, *arguments: object) -> "list[Record]":
    """Run one writing statement as its own transaction, and return its rows. Raises what `write_rows` raises."""
    if shard_of(merchant_id) is not None:
        return await write_rows(merchant_id, lambda conn: conn.fetch(statement, *arguments))
    async with connection(merchant_id) as conn:  # PostgreSQL's own transaction saves two round trips
        found: list[Record] = await conn.fetch(statement, *arguments)
        return found


async def with_retries(attempt: Callable[[], Awaitable[T]], *, retry_safe: bool) -> T:
    """Run a transaction, and retry it up to twice after a conflict or, if it is `retry_safe`, after a lost connection.

    If the connection breaks during COMMIT, the outcome is unknown. A retry is safe then only if the transaction starts by
    looking up its idempotency key. Raises UNAVAILABLE when it gives up.
    """
    errors = (*RETRYABLE, *CONNECTION_ERRORS) if retry_safe else RETRYABLE
    try:
        for number in range(ATTEMPTS - 1):
            try:
                return await attempt()
            except errors:
                await asyncio.sleep(0.05 * 2**number)
        return await attempt()
    except RETRYABLE:
        raise unavailable(f"{CONTENTION} Nothing was done.") from None
    except CONNECTION_ERRORS as error:
        raise database_unavailable(error) from error
