"""The connection pool and the one transaction helper that money moves in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from piccolo.engine.postgres import PostgresEngine

from sandbox.errors import unavailable

APPLICATION_ROLE: Final = "psp_app"
"""The role that all work is done in: it may not change or delete a transfer or an event."""


class _QuietEngine(PostgresEngine):
    """Piccolo's engine without the connection that it opens when it is made, which is at import."""

    async def check_version(self) -> None:
        """The migrations check the server's version."""

    async def prep_database(self) -> None:
        """No extensions are needed."""


ENGINE: Final = _QuietEngine(config={})
"""Piccolo's engine; `open_pool` gives it its pool."""

PLANNER: Final = {
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "enable_incremental_sort": "off",
}
"""Settings under which plans are the same whatever the planner knows of the tables.

A statement is planned once a connection, for any merchant. It reads rows through an index, and those that it wants in an order
from the index that has this order; where none has, nothing is lost, as these settings forbid nothing that is the only way.
"""

LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    OSError,
    EOFError,
    TimeoutError,
)
"""What says that PostgreSQL is away, as opposed to a statement that it refused."""

RETRYABLE: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError)
"""What is worth doing again as it is: another transaction was in the way."""


async def _reset(_: object) -> None:
    """Connections go back as they are: transactions here are whole or dropped, and nothing sets session state.

    asyncpg's own reset would cost a round trip each time.
    """


async def open_pool(database_url: str, size: int) -> None:
    """Open Piccolo's pool on `database_url`, at most `size` connections, all in the application's role."""
    await ENGINE.start_connection_pool(
        dsn=database_url,
        min_size=0,
        max_size=size,
        timeout=5,
        command_timeout=60,
        max_inactive_connection_lifetime=300,
        server_settings={"role": APPLICATION_ROLE, "application_name": "psp-sandbox", **PLANNER},
        reset=_reset,
    )


async def close_pool() -> None:
    """Close the pool; connections still busy after 5 s are cut."""
    pool = ENGINE.pool
    if pool is None:
        return
    try:
        await asyncio.wait_for(pool.close(), 5)
    except TimeoutError:
        pool.terminate()
    ENGINE.pool = None


def _pool() -> "asyncpg.Pool[Any]":
    if ENGINE.pool is None:
        raise RuntimeError("open_pool was not called")
    return ENGINE.pool


@asynccontextmanager
async def connection() -> AsyncIterator["PoolConnectionProxy[Any]"]:
    """A pooled connection for reads, each statement on its own."""
    async with _pool().acquire(timeout=5) as conn:
        yield conn


@asynccontextmanager
async def transaction() -> AsyncIterator["PoolConnectionProxy[Any]"]:
    """One transaction, all or nothing, on a connection of its own (Piccolo's helper leaks it when COMMIT fails).

    On any error it is rolled back; a connection that cannot even do that is dropped, never given back with a
    transaction left open. Raises what the body raised, or asyncpg's error of the COMMIT.
    """
    pool = _pool()
    conn = await pool.acquire(timeout=5)
    try:
        await conn.execute("BEGIN")
        try:
            yield conn
            await conn.execute("COMMIT")
        except BaseException:
            try:
                await asyncio.wait_for(conn.execute("ROLLBACK"), 5)
            except (*LOST, asyncpg.PostgresError):
                conn.terminate()
            raise
    finally:
        await pool.release(conn)


@asynccontextmanager
async def as_owner(conn: "PoolConnectionProxy[Any]") -> AsyncIterator[None]:
    """Work as the database's owner in the block, in a transaction.

    The application's role may not delete transfers and events; taking away a whole world is more than it may do.
    """
    await conn.execute("SET LOCAL ROLE NONE")
    yield
    # If the block raised, the rollback does this.
    await conn.execute(f"SET LOCAL ROLE {APPLICATION_ROLE}")


async def plan_by_statistics(conn: "PoolConnectionProxy[Any]") -> None:
    """Give the planner its freedom back until the transaction ends: for statements that read most of a merchant's rows."""
    freed = ((name, "auto" if name == "plan_cache_mode" else "on") for name in PLANNER if name != "jit")
    await conn.execute("; ".join(f"SET LOCAL {name} = {value}" for name, value in freed))


@asynccontextmanager
async def snapshot() -> AsyncIterator["PoolConnectionProxy[Any]"]:
    """A transaction that only reads, all its statements from the one moment of its first.

    It keeps the vacuum from what died since: for short reads only. Raises as `transaction` does.
    """
    async with transaction() as conn:
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield conn


@asynccontextmanager
async def available() -> AsyncIterator[None]:
    """Turn the loss of PostgreSQL inside the block into the 503 that says when to come back."""
    try:
        yield
    except LOST as error:
        raise unavailable("The database does not answer. Nothing was lost.") from error
