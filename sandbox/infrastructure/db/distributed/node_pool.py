"""The connections of a process to one node of a distributed database. All shards of the node share them.

A shard's schema is the `search_path` of a connection that serves it. A connection should serve few shards: for each, its server
process compiles the database functions and plans the statements once, and keeps that in its memory.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from sandbox.infrastructure.db.connector import Connection, Pool

MAX_SHARDS_PER_CONNECTION: Final = 16
"""A connection that has served this many schemas serves no further one: it is closed, to limit its process's memory."""

PATIENCE_SECONDS: Final = 0.5
"""How long to wait for a busy connection that knows the schema, if others are idle. Longer than most transactions take."""


class AllBusyError(TimeoutError):
    """All connections to the node were in use for too long. The node may be up."""


class ShardConnection(asyncpg.Connection):
    """A connection whose prepared statements belong to the schema in which they were prepared.

    PostgreSQL would plan a statement again after each change of the `search_path`, and types differ between schemas.
    """

    __slots__ = ("schema", "served")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.schema: str | None = None
        self.served: set[str | None] = set()

    async def _get_statement(self, query: str, *arguments: Any, **options: Any) -> Any:
        in_schema = query if self.schema is None else f"/* {self.schema} */ {query}"
        return await super()._get_statement(in_schema, *arguments, **options)  # type: ignore[misc]  # not in the stubs


class NodePool:
    """At most `size` connections. If none is idle, callers wait in the order of their arrival.

    If another one knows the schema and is in use, a caller waits a little while for it, rather than take one that does not.
    """

    def __init__(self, slots: "list[_Slot]") -> None:
        self._slots = slots
        self._idle = list(slots)
        """The idle slots. The most recently used one is at the end."""
        self._busy: dict[Connection, _Slot] = {}
        self._waiting: dict[asyncio.Future[_Slot], _Wish] = {}
        """In the order of arrival."""

    @classmethod
    async def open(cls, size: int, create: "Callable[[Callable[[Any], Awaitable[None]]], Awaitable[Pool]]") -> "NodePool":
        """Prepare `size` connections. They are made when they are needed.

        `create` makes an asyncpg pool for one ShardConnection, and calls its argument with each new one.
        """
        slots = [_Slot() for _ in range(size)]
        for slot in slots:
            slot.pool = await create(slot.begin)
        return cls(slots)

    async def acquire(self, schema: str | None, seconds: float) -> Connection:
        """Take a connection, with this schema as its search path. None: one of a pool that is for no schemas.

        Raises AllBusyError, OSError (TimeoutError, too) and asyncpg's errors.
        """
        slot: _Slot | None = None
        try:
            async with asyncio.timeout(seconds):
                slot = await self._take_slot(schema)
                conn = await slot.connect(schema)
        except BaseException as error:
            if slot is not None:
                self._return(slot)
            elif isinstance(error, TimeoutError):
                raise AllBusyError(f"all {len(self._slots)} connections are busy") from error
            raise
        self._busy[conn] = slot
        return conn

    async def release(self, conn: Connection) -> None:
        """Give back a connection. One that was lost or terminated is replaced later."""
        slot = self._busy.pop(conn)
        try:
            await slot.pool.release(conn)
        finally:
            self._return(slot)

    async def forget(self, schema: str) -> None:
        """Close the connections that have served the schema, because it was dropped. Those in use are closed afterwards."""
        for slot in self._slots:
            if slot.connection is not None and schema in slot.connection.served:
                await slot.pool.expire_connections()

    async def close(self) -> None:
        """Close all connections. Waits for those in use."""
        await asyncio.gather(*(slot.pool.close() for slot in self._slots))

    def terminate(self) -> None:
        """Close all connections, without waiting for their requests."""
        for slot in self._slots:
            slot.pool.terminate()

    async def _take_slot(self, schema: str | None) -> "_Slot":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Slot] = loop.create_future()
        self._waiting[future] = _Wish(schema, loop.time() + PATIENCE_SECONDS)
        self._assign()
        try:
            if not future.done():
                timer = loop.call_later(PATIENCE_SECONDS, self._assign)
                try:
                    await future
                finally:
                    timer.cancel()
            return future.result()
        except BaseException:
            if self._waiting.pop(future, None) is None and not future.cancelled():  # it was assigned meanwhile
                self._return(future.result())
            raise

    def _assign(self) -> None:
        """Give idle connections to the waiting callers, in the order of their arrival."""
        now = asyncio.get_running_loop().time()
        for future, wish in list(self._waiting.items()):
            if not self._idle:
                return
            if future.cancelled():
                continue
            slot = self._most_suitable(wish.schema)
            if slot.knows(wish.schema) or now >= wish.patient_until or not any(one.knows(wish.schema) for one in self._slots):
                self._idle.remove(slot)
                del self._waiting[future]
                slot.intended_for = wish.schema
                future.set_result(slot)

    def _most_suitable(self, schema: str | None) -> "_Slot":
        return max(reversed(self._idle), key=lambda slot: slot.suitability(schema))

    def _return(self, slot: "_Slot") -> None:
        slot.intended_for = None
        self._idle.append(slot)
        self._assign()


@dataclass(frozen=True, slots=True)
class _Wish:
    schema: str | None
    patient_until: float


class _Slot:
    """Room for one connection: an asyncpg pool for a single one, which connects, and closes the connection when it was idle."""

    pool: Pool
    connection: ShardConnection | None = None
    intended_for: str | None = None
    """The schema for which the slot is in use."""

    async def begin(self, conn: ShardConnection) -> None:
        """Remember a new connection."""
        self.connection = conn

    def suitability(self, schema: str | None) -> tuple[int, int]:
        """Return how well the slot's connection suits a schema. If it does not know it, few schemas are better."""
        conn = self.connection
        if conn is None or conn.is_closed():
            return (1, 0)
        if conn.schema == schema:
            return (4, 0)
        if schema in conn.served:
            return (3, 0)
        return (0 if self._is_full() else 2, -len(conn.served))

    def knows(self, schema: str | None) -> bool:
        """Whether the connection has served the schema, or is about to."""
        if self.intended_for == schema is not None:
            return True
        conn = self.connection
        return conn is not None and not conn.is_closed() and schema in conn.served

    async def connect(self, schema: str | None) -> Connection:
        """Return the connection, with this search path."""
        conn = await self.pool.acquire()
        try:
            assert self.connection is not None
            if schema is not None and schema not in self.connection.served and self._is_full():
                await conn.close()
                conn = await self.pool.acquire()
            if self.connection.schema != schema:
                await conn.execute(f"SET search_path = {schema}")
                self.connection.schema = schema
                self.connection.served.add(schema)
        except BaseException:
            conn.terminate()
            await self.pool.release(conn)
            raise
        return conn

    def _is_full(self) -> bool:
        return self.connection is not None and len(self.connection.served) >= MAX_SHARDS_PER_CONNECTION
