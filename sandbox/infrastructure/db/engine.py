"""Connections to a merchant's rows, and the transaction that all writes use."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import asyncpg
from piccolo.engine.postgres import PostgresEngine

from sandbox.domain.errors import Problem, unavailable
from sandbox.infrastructure.db.connector import Connection, roll_back
from sandbox.infrastructure.db.distributed.cluster import Shard
from sandbox.infrastructure.db.joined_messages import is_open
from sandbox.infrastructure.db.pools import Pools

T = TypeVar("T")
Owner = str | Shard
"""The id of a merchant, or a shard, which has the rows of several merchants."""

APPLICATION_ROLE: Final = "psp_app"
"""The database role of the application. It cannot change or delete transfers and events."""


class _Engine(PostgresEngine):
    """Piccolo's engine. Its queries run on the connection of the innermost `connection` or `transaction`."""

    async def check_version(self) -> None:
        """Do nothing: `migrate` checks the server's version. Piccolo's own check opens a connection at import."""

    async def prep_database(self) -> None:
        """Do nothing: no extensions are needed."""

    async def _run_in_new_connection(self, query: str, args: Sequence[Any] | None = None) -> "list[asyncpg.Record]":
        raise RuntimeError("run Piccolo's queries inside `connection` or `transaction`")


class _Reader:
    """A connection for Piccolo's reads outside a transaction."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def fetch(self, query: str, *args: Any) -> "list[asyncpg.Record]":
        """Run a query. Raises RuntimeError if it writes."""
        if not query.startswith("SELECT"):
            raise RuntimeError("only a unit of work writes: run this query inside its transaction")
        return await self._conn.fetch(query, *args)


class _Current:
    """The value of Piccolo's context variable: the connection on which its queries run.

    A task started meanwhile keeps the variable after the block has ended, when the connection may already serve another task.
    So the connection is removed at the end. This object is then false, and Piccolo's queries fail.
    """

    def __init__(self, conn: "Connection | _Reader") -> None:
        self.connection: Connection | _Reader | None = conn

    def __bool__(self) -> bool:
        return self.connection is not None


ENGINE: Final = _Engine(config={})
"""Piccolo's engine. It has its own pool only in migrations."""

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
    asyncpg.IdleInTransactionSessionTimeoutError,
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


_opened: Pools | None = None


async def open_pool(database_url: str, size: int) -> None:
    """Prepare at most `size` connections to `database_url`, all in the application's role.

    If the database is distributed, they are made to the nodes that own the merchants' rows, whichever node the URL names: at
    most `size` to each, which its shards share, and a few more for what belongs to no merchant.
    """
    global _opened
    _opened = Pools(database_url, size, APPLICATION_ROLE, PLANNER)


async def close_pool() -> None:
    """Close all connections. Those that are still busy after 5 seconds are terminated."""
    global _opened
    if _opened is not None:
        await _opened.close()
        _opened = None


def known_pools() -> Pools | None:
    """Return the process's connections; None before `open_pool`."""
    return _opened


def opened_pools() -> Pools:
    """Return the process's connections. Raises RuntimeError before `open_pool`."""
    if _opened is None:
        raise RuntimeError("open_pool was not called")
    return _opened


@contextmanager
def connection_errors_translated() -> Iterator[None]:
    """Translate what only connecting can raise: connection refused, name not resolved, timeout, connection broken."""
    try:
        yield
    except (OSError, EOFError) as error:
        raise DatabaseUnavailableError(error) from error


@contextmanager
def _translate_connection_errors() -> Iterator[None]:
    """Translate generic errors of statements: a statement that timed out, a connection that broke."""
    try:
        yield
    except (TimeoutError, ConnectionError) as error:
        raise DatabaseUnavailableError(error) from error


@asynccontextmanager
async def _enter(owner: Owner | None, begin: Sequence[str], function: str) -> AsyncIterator[Connection]:
    """Yield a connection on which `begin` runs before the first statement, and in a shard also the function."""
    with connection_errors_translated():
        pool, conn = await opened_pools().acquire(owner, begin, function)
    try:
        with _translate_connection_errors():
            yield conn
    finally:
        await pool.release(conn)


@asynccontextmanager
async def connection(owner: Owner) -> AsyncIterator[Connection]:
    """Yield a connection to the rows of a merchant or shard, for reads outside a transaction.

    Raises CONNECTION_ERRORS, and asyncpg's statement errors.
    """
    async with _enter(owner, (), "psp_check") as conn:
        with _bind_piccolo(conn, _Reader(conn)):
            yield conn


@asynccontextmanager
async def shared_connection() -> AsyncIterator[Connection]:
    """Yield a connection to the tables that belong to no merchant, for reads. Raises the errors of `connection`."""
    async with _enter(None, (), "") as conn:
        yield conn


async def write_shared(statement: str, *arguments: object) -> None:
    """Run a statement that writes to the tables that belong to no merchant, as a separate transaction.

    On a distributed database, every node has a copy of them, so all nodes must respond. Nodes connect to each other as the
    current role. The application's cannot log in, so this works as the database's owner.
    Raises CONNECTION_ERRORS, and asyncpg's statement errors.
    """
    with connection_errors_translated():
        conn = await opened_pools().connect_as_owner()
    with _translate_connection_errors():
        try:
            await conn.execute(statement, *arguments)
        finally:
            await conn.close(timeout=5)


@contextmanager
def _bind_piccolo(conn: Connection, bound: "Connection | _Reader") -> Iterator[None]:
    """Run Piccolo's queries on the connection."""
    variable: ContextVar[Any] = ENGINE.current_transaction
    outer, current = variable.get(), _Current(bound)
    variable.set(current)
    try:
        yield
    finally:
        current.connection = None
        # Not with a token: `reset` fails if the block is left in another context than the one that entered it.
        variable.set(outer)


@asynccontextmanager
async def transaction(
    owner: Owner, lock_timeout: float | None = None, mode: str = "", *, as_database_owner: bool = False
) -> AsyncIterator[Connection]:
    """Run the body in one transaction on its own connection. Piccolo's own helper leaks the connection if COMMIT fails.

    It can read and write the rows of one merchant, and of others in the same shard (`shard_of`). A statement that waits for a
    lock for more than `lock_timeout` seconds raises asyncpg's LockNotAvailableError. `mode` is for BEGIN, such as "READ ONLY".
    The application's role cannot delete transfers and events: to replace a world, work `as_database_owner`.
    Piccolo's queries in the body are part of the transaction. Any error rolls it back. Raises the body's error,
    CONNECTION_ERRORS, or asyncpg's error of the COMMIT.
    """
    begin = [f"BEGIN {mode}"]
    if lock_timeout is not None:
        begin.append(f"SET LOCAL lock_timeout = {round(lock_timeout * 1000)}")
    if as_database_owner:  # from the beginning: Citus refuses to change the role later
        begin.append("SET LOCAL ROLE NONE")
    enter = "psp_check" if "READ ONLY" in mode else "psp_enter"
    async with _enter(owner, begin, enter) as conn:
        try:
            with _bind_piccolo(conn, conn):
                yield conn
            if is_open(conn):  # otherwise a COMMIT has been sent with the last statement
                await conn.execute("COMMIT")
        except BaseException:
            await roll_back(conn)
            raise


async def plan_by_statistics(conn: Connection) -> None:
    """Undo PLANNER until the transaction ends, for statements that read most of a merchant's rows."""
    defaults = ((name, "auto" if name == "plan_cache_mode" else "on") for name in PLANNER if name != "jit")
    await conn.execute("; ".join(f"SET LOCAL {name} = {value}" for name, value in defaults))


def consistent_read(owner: Owner) -> "AbstractAsyncContextManager[Connection]":
    """Run the body in a read-only transaction whose statements all see the same snapshot.

    Use it for short reads only, because it keeps VACUUM from removing dead rows. Raises the errors of `transaction`.
    """
    return transaction(owner, mode="ISOLATION LEVEL REPEATABLE READ READ ONLY")


def read_transaction(owner: Owner) -> "AbstractAsyncContextManager[Connection]":
    """Run the body in a read-only transaction in which each statement sees its own snapshot.

    Between statements it holds no snapshot, so even a long one does not hold up VACUUM. Raises the errors of `transaction`.
    """
    return transaction(owner, mode="READ ONLY")


@asynccontextmanager
async def db_errors_as_503() -> AsyncIterator[None]:
    """Turn CONNECTION_ERRORS of the block into a 503 with a Retry-After, as the response to a request does by itself."""
    try:
        yield
    except CONNECTION_ERRORS as error:
        raise database_unavailable(error) from error


def database_unavailable(error: Exception) -> Problem:
    """Return the 503 for one of CONNECTION_ERRORS, with its cause if known. Raise it from the error, for the log."""
    state = next((text for kind, text in _STATES.items() if isinstance(error, kind)), "does not respond")
    return unavailable(f"The database {state}. Nothing was lost: retry.")
