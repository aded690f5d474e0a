"""The connection pool and the one transaction helper that money moves in."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, Final

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from piccolo.engine.postgres import PostgresEngine

from sandbox.domain.errors import Problem, unavailable

APPLICATION_ROLE: Final = "psp_app"
"""The role that all work is done in: it may not change or delete a transfer or an event."""


class _Engine(PostgresEngine):
    """Piccolo's engine on our connections, without the one that it opens when it is made, which is at import."""

    only_reads = False
    """Whether a query outside of a transaction may only read: not in a migration."""

    async def check_version(self) -> None:
        """The migrations check the server's version."""

    async def prep_database(self) -> None:
        """No extensions are needed."""

    async def _run_in_pool(self, query: str, args: Sequence[Any] | None = None) -> "list[asyncpg.Record]":
        """Run a query outside of a transaction. Raises as `connection` does, and RuntimeError for one that writes."""
        if self.only_reads and not query.startswith("SELECT"):
            raise RuntimeError("only a unit of work writes: run this query inside its transaction")
        async with connection() as conn:
            return await conn.fetch(query, *(args or ()))


class _Current:
    """What Piccolo finds in its context variable: the transaction that its queries take part in.

    A task that is started in a transaction keeps the variable when the transaction has ended, and its connection is another's
    then. So the connection is taken out of here, and Piccolo, which looks whether this is true, goes to the pool.
    """

    def __init__(self, conn: "PoolConnectionProxy[Any]") -> None:
        self.connection: PoolConnectionProxy[Any] | None = conn

    def __bool__(self) -> bool:
        return self.connection is not None


ENGINE: Final = _Engine(config={})
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


class DatabaseAwayError(Exception):
    """PostgreSQL cannot be reached, or did not answer in time. The message names the driver's error."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")


CONNECTION_ERRORS: Final = (
    DatabaseAwayError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
)
"""What says that PostgreSQL is away, as opposed to a statement that it refused. No OSError as such is among them: a disk of
ours that is full is another matter, and must not be taken for it."""

RETRYABLE: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError)
"""What is worth doing again as it is: another transaction was in the way."""


_STATES: Final = {
    asyncpg.DiskFullError: "has no space left on its disk",
    asyncpg.OutOfMemoryError: "is out of memory",
    asyncpg.TooManyConnectionsError: "has too many connections",
    asyncpg.PostgresSystemError: "has a fault in its system",
}


async def _reset(_: object) -> None:
    """Connections go back as they are: transactions here are whole or dropped, and nothing sets session state.

    asyncpg's own reset would cost a round trip each time.
    """


async def open_pool(database_url: str, size: int) -> None:
    """Open Piccolo's pool on `database_url`, at most `size` connections, all in the application's role."""
    ENGINE.only_reads = True
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
    ENGINE.pool, ENGINE.only_reads = None, False


def _pool() -> "asyncpg.Pool[Any]":
    if ENGINE.pool is None:
        raise RuntimeError("open_pool was not called")
    return ENGINE.pool


async def _acquire(pool: "asyncpg.Pool[Any]") -> "PoolConnectionProxy[Any]":
    try:
        return await pool.acquire(timeout=5)
    except (OSError, EOFError) as error:  # refused, unresolved, too late: all that connecting can meet
        raise DatabaseAwayError(error) from error


@contextmanager
def _naming_losses() -> Iterator[None]:
    """Give the driver's plain errors a name of their own: a statement that took too long, a socket that broke."""
    try:
        yield
    except (TimeoutError, ConnectionError) as error:
        raise DatabaseAwayError(error) from error


@asynccontextmanager
async def connection() -> AsyncIterator["PoolConnectionProxy[Any]"]:
    """A pooled connection for reads, each statement on its own. Raises CONNECTION_ERRORS, and asyncpg's of the statements."""
    pool = _pool()
    conn = await _acquire(pool)
    try:
        with _naming_losses():
            yield conn
    finally:
        await pool.release(conn)


@contextmanager
def _current(conn: "PoolConnectionProxy[Any]") -> Iterator[None]:
    """Let Piccolo's queries take part in the transaction that is open on the connection."""
    variable: ContextVar[Any] = ENGINE.current_transaction
    outer, current = variable.get(), _Current(conn)
    variable.set(current)
    try:
        yield
    finally:
        current.connection = None
        # Not by a token: a transaction that is closed in another context than it was opened in has nothing to restore there.
        variable.set(outer)


@asynccontextmanager
async def transaction() -> AsyncIterator["PoolConnectionProxy[Any]"]:
    """One transaction, all or nothing, on a connection of its own (Piccolo's helper leaks it when COMMIT fails).

    Piccolo's queries in the body take part in it.

    On any error it is rolled back; a connection that cannot even do that is dropped, never given back with a
    transaction left open. Raises what the body raised, CONNECTION_ERRORS, or asyncpg's error of the COMMIT.
    """
    pool = _pool()
    conn = await _acquire(pool)
    try:
        with _naming_losses():
            await conn.execute("BEGIN")
            try:
                with _current(conn):
                    yield conn
                await conn.execute("COMMIT")
            except BaseException:
                try:
                    await asyncio.wait_for(conn.execute("ROLLBACK"), 5)
                except (*CONNECTION_ERRORS, asyncpg.PostgresError, OSError):
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
async def consistent_read() -> AsyncIterator["PoolConnectionProxy[Any]"]:
    """A transaction that only reads, all its statements from the one moment of its first.

    It keeps the vacuum from what died since: for short reads only. Raises as `transaction` does.
    """
    async with transaction() as conn:
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield conn


@asynccontextmanager
async def db_errors_as_503() -> AsyncIterator[None]:
    """Turn the loss of PostgreSQL inside the block into the 503 that says when to come back."""
    try:
        yield
    except CONNECTION_ERRORS as error:
        raise away(error) from error


def away(error: Exception) -> Problem:
    """The 503 for one of CONNECTION_ERRORS, with what is known of the cause. Raise it from the error, for the log."""
    state = next((text for kind, text in _STATES.items() if isinstance(error, kind)), "does not answer")
    return unavailable(f"The database {state}. Nothing was lost: retry.")
