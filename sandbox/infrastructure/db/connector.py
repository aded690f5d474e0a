"""Make connections and pools of connections with the application's settings."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

CONNECT_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 5
"""How long a transaction may wait for its process. Transactions do nothing else between their statements, so after that the
process is stopped or hangs, and PostgreSQL rolls back and releases the merchants' locks."""

Connection: TypeAlias = "PoolConnectionProxy[Any]"
Pool: TypeAlias = "asyncpg.Pool[Any]"
Address = tuple[str, int]
"""The host and the port of a server."""


class Connector:
    """Connects to the server that the URL names, or to another one with the same user and database."""

    def __init__(self, database_url: str, role: str, settings: Mapping[str, str]) -> None:
        """The connections of pools have this role and these settings."""
        self.role = role
        self._database_url = database_url
        self._settings = {
            "role": role,
            "application_name": "psp-sandbox",
            "idle_in_transaction_session_timeout": f"{_IDLE_SECONDS}s",
            **settings,
        }

    async def create_pool(
        self,
        size: int,
        init: Any,
        address: Address | None = None,
        settings: Mapping[str, str] | None = None,
        kind: Any = asyncpg.Connection,
        idle_seconds: float = 300,
    ) -> Pool:
        """Return a pool, which connects when it is used, and calls `init` with each new connection."""
        return await asyncpg.create_pool(
            dsn=self._database_url,
            **_address(address),
            min_size=0,
            max_size=size,
            timeout=CONNECT_SECONDS,
            command_timeout=60,
            max_inactive_connection_lifetime=idle_seconds,
            server_settings={**self._settings, **(settings or {})},
            reset=_reset,
            init=init,
            connection_class=kind,
        )

    async def connect(
        self, seconds: float, address: Address | None = None, settings: Mapping[str, str] | None = None
    ) -> "asyncpg.Connection[Any]":
        """Connect as the owner of the database. The caller closes the connection. Raises OSError and asyncpg's errors."""
        conn: asyncpg.Connection[Any] = await asyncpg.connect(
            dsn=self._database_url,
            **_address(address),
            timeout=seconds,
            command_timeout=60,
            server_settings={"application_name": "psp-sandbox", **(settings or {})},
        )
        return conn


class _Closable(Protocol):
    async def close(self) -> None: ...

    def terminate(self) -> None: ...


async def close(pool: _Closable) -> None:
    """Close a pool. Connections that are still busy after 5 seconds are terminated."""
    try:
        await asyncio.wait_for(pool.close(), 5)
    except TimeoutError:
        pool.terminate()


async def roll_back(conn: Connection) -> None:
    """Roll back. If that fails, terminate the connection, so that it never returns to the pool with an open transaction."""
    try:
        await asyncio.wait_for(conn.execute("ROLLBACK"), 5)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        conn.terminate()


def _address(address: Address | None) -> dict[str, Any]:
    return {} if address is None else {"host": address[0], "port": address[1]}


async def _reset(_: object) -> None:
    """Do nothing when a connection returns to the pool: no transaction is left open, and no session state was set.

    asyncpg's own reset would cost a round trip each time.
    """
