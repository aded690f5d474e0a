"""Writing transactions: all of them are opened here, and repeated here when another was in the way or the connection broke."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from sandbox.db.engine import CONNECTION_ERRORS, RETRYABLE, connection, database_unavailable, transaction
from sandbox.domain.errors import CONTENTION, unavailable

if TYPE_CHECKING:
    from asyncpg import Record
    from asyncpg.pool import PoolConnectionProxy

ATTEMPTS: Final = 3
T = TypeVar("T")
_WAIT: Final = wait_exponential(multiplier=0.05)


async def write_rows(body: Callable[["PoolConnectionProxy[Any]"], Awaitable[T]]) -> T:
    """Write rows that the merchant's lock does not guard (webhook attempts, a vendor's pages) in one transaction.

    Returns what the body returns. Raises what it raises, having written nothing, and CONNECTION_ERRORS.
    """
    async with transaction() as conn:
        return await body(conn)


async def write_alone(statement: str, *arguments: object) -> "list[Record]":
    """Run one writing statement as a transaction of its own; returns its rows. Raises as `write_rows`."""
    async with connection() as conn:
        found: list[Record] = await conn.fetch(statement, *arguments)
        return found


async def with_retries(attempt: Callable[[], Awaitable[T]], *, repeatable: bool) -> T:
    """Run a transaction at most three times: again if another was in the way, and if the connection broke.

    A connection that breaks during COMMIT leaves open whether it happened. Only a transaction that finds out by itself, by an
    idempotency key, is `repeatable` then. Raises UNAVAILABLE when it gives up.
    """
    errors = (*RETRYABLE, *CONNECTION_ERRORS) if repeatable else RETRYABLE
    failed: Exception | None = None

    async def again() -> T:
        nonlocal failed
        if failed is not None:  # the attempt that was made below is the first one
            error, failed = failed, None
            raise error
        return await attempt()

    try:
        try:
            return await attempt()  # not through the library, which costs 30 µs a call
        except errors as error:
            failed = error
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(errors), stop=stop_after_attempt(ATTEMPTS), wait=_WAIT, reraise=True
        )
        return await retrying(again)
    except RETRYABLE:
        raise unavailable(f"{CONTENTION} Nothing was done.") from None
    except CONNECTION_ERRORS as error:
        raise database_unavailable(error) from error
