"""The connection pool, and the transaction that all writes use."""

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
"""The database role of the application. It cannot change or delete transfers and events."""


class _Engine(PostgresEngine):
    """Piccolo's engine on our pool. Unlike Piccolo's own, it opens no connection when it is created, which is at import."""

    only_reads = False
    """Whether queries outside a transaction must be reads. False in migrations."""

    async def check_version(self) -> None:
        """Do nothing: `migrate` checks the server's version."""

    async def prep_database(self) -> None:
        """Do nothing: no extensions are needed."""

    async def _run_in_pool(self, query: str, args: Sequence[Any] | None = None) -> "list[asyncpg.Record]":
        """Run a query outside a transaction. Raises the errors of `connection`, and RuntimeError if it writes."""
        if self.only_reads and not query.startswith("SELECT"):
            raise RuntimeError("only a unit of work writes: run this query inside its transaction")
        async with connection() as conn:
            return await conn.fetch(query, *(args or ()))


class _CurrentTransaction:
    """The value of Piccolo's context variable: the transaction in which its queries run.

    A task started during a transaction keeps the variable after the transaction has ended, when the connection may already
    serve another task. So the connection is removed at the end. This object is then false, and Piccolo uses the pool instead.
    """

    def __init__(self, conn: "PoolConnectionProxy[Any]") -> None:
        self.connection: PoolConnectionProxy[Any] | None = conn

    def __bool__(self) -> bool:
        return self.connection is not None


ENGINE: Final = _Engine(config={})
"""Piccolo's engine. `open_pool` sets its pool."""

PLANNER: Final = {
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "enable_incremental_sort": "off",
}
"""Settings that keep query plans independent of table statistics.

Each connection plans a statement once, for all merchants. These settings make it read rows through an index, and sorted rows
through the index with that order. Where no index fits, the planner can still scan or sort: the settings only discourage that.
"""


class DatabaseUnavailableError(Exception):
    """PostgreSQL cannot be reached, or did not respond in time. The message contains the driver's error."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")


CONNECTION_ERRORS: Final = (
    DatabaseUnavailableError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
)
"""Errors that mean that PostgreSQL is unavailable, rather than that it refused a statement. OSError is not among them, because
it also reports local problems such as a full disk."""

RETRYABLE: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError)
"""Errors caused by a concurrent transaction: repeat the transaction as it is."""

_STATES: Final = {
    asyncpg.DiskFullError: "has no space left on its disk",
    asyncpg.OutOfMemoryError: "is out of memory",
    asyncpg.TooManyConnectionsError: "has too many connections",
    asyncpg.PostgresSystemError: "reports a system error",
}


async def _reset(_: object) -> None:
    """Do nothing when a connection returns to the pool: no transaction is left open, and no session state was set.

    asyncpg's own reset would cost a round trip each time.
    """


async def open_pool(database_url: str, size: int) -> None:
    """Open the pool on `database_url` with at most `size` connections, all in the application's role."""
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
    """Close the pool. Connections that are still busy after 5 seconds are terminated."""
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
    except (OSError, EOFError) as error:  # connection refused, name not resolved, timeout
        raise DatabaseUnavailableError(error) from error


@contextmanager
def _translate_connection_errors() -> Iterator[None]:
    """Translate the driver's generic errors: a statement that timed out, a connection that broke."""
    try:
        yield
    except (TimeoutError, ConnectionError) as error:
        raise DatabaseUnavailableError(error) from error


@asynccontextmanager
async def connection() -> AsyncIterator["PoolConnectionProxy[Any]"]:
    """Yield a pooled connection for reads outside a transaction. Raises CONNECTION_ERRORS, and asyncpg's statement errors."""
    pool = _pool()
    conn = await _acquire(pool)
    try:
        with _translate_connection_errors():
            yield conn
    finally:
        await pool.release(conn)


@contextmanager
def _bind_piccolo(conn: "PoolConnectionProxy[Any]") -> Iterator[None]:
    """Run Piccolo's queries inside the transaction that is open on the connection."""
    variable: ContextVar[Any] = ENGINE.current_transaction
    outer, current = variable.get(), _CurrentTransaction(conn)
    variable.set(current)
    try:
        yield
    finally:
        current.connection = None
        # Not with a token: `reset` fails if the transaction is closed in another context than the one that opened it.
        variable.set(outer)


@asynccontextmanager
async def transaction(lock_timeout: float | None = None) -> AsyncIterator["PoolConnectionProxy[Any]"]:
    """Run the body in one transaction on its own connection. Piccolo's own helper leaks the connection if COMMIT fails.

    A statement that waits for a lock for more than `lock_timeout` seconds raises asyncpg's LockNotAvailableError.
    Piccolo's queries in the body are part of the transaction. Any error rolls it back. If the rollback fails, the connection
    is terminated, so it never returns to the pool with an open transaction. Raises the body's error, CONNECTION_ERRORS, or
    asyncpg's error of the COMMIT.
    """
    pool = _pool()
    conn = await _acquire(pool)
    try:
        with _translate_connection_errors():
            limit = "" if lock_timeout is None else f"; SET LOCAL lock_timeout = {round(lock_timeout * 1000)}"
            await conn.execute(f"BEGIN{limit}")
            try:
                with _bind_piccolo(conn):
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
    """Run the block as the database's owner. Use it inside a transaction.

    The application's role cannot delete transfers and events, which removing a world requires.
    """
    await conn.execute("SET LOCAL ROLE NONE")
    yield
    # If the block raised, the rollback restores the role.
    await conn.execute(f"SET LOCAL ROLE {APPLICATION_ROLE}")


async def plan_by_statistics(conn: "PoolConnectionProxy[Any]") -> None:
    """Undo PLANNER until the transaction ends, for statements that read most of a merchant's rows."""
    defaults = ((name, "auto" if name == "plan_cache_mode" else "on") for name in PLANNER if name != "jit")
    await conn.execute("; ".join(f"SET LOCAL {name} = {value}" for name, value in defaults))


@asynccontextmanager
async def consistent_read() -> AsyncIterator["PoolConnectionProxy[Any]"]:
    """Run the body in a read-only transaction whose statements all see the same snapshot.

    Use it for short reads only, because it keeps VACUUM from removing dead rows. Raises the errors of `transaction`.
    """
    async with transaction() as conn:
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield conn


@asynccontextmanager
async def read_transaction() -> AsyncIterator["PoolConnectionProxy[Any]"]:
    """Run the body in a read-only transaction in which each statement sees its own snapshot.

    Between statements it holds no snapshot, so even a long one does not hold up VACUUM. Raises the errors of `transaction`.
    """
    async with transaction() as conn:
        await conn.execute("SET TRANSACTION READ ONLY")
        yield conn


@asynccontextmanager
async def db_errors_as_503() -> AsyncIterator[None]:
    """Turn CONNECTION_ERRORS of the block into a 503 with a Retry-After."""
    try:
        yield
    except CONNECTION_ERRORS as error:
        raise database_unavailable(error) from error


def database_unavailable(error: Exception) -> Problem:
    """Return the 503 for one of CONNECTION_ERRORS, with its cause if known. Raise it from the error, for the log."""
    state = next((text for kind, text in _STATES.items() if isinstance(error, kind)), "does not respond")
    return unavailable(f"The database {state}. Nothing was lost: retry.")
