"""Send several commands to Redis in one message, and in the background what may be lost."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import ConnectionPool
from redis.exceptions import ResponseError

from sandbox.infrastructure.outages import Outage
from sandbox.infrastructure.redis_errors import REDIS_ERRORS
from sandbox.infrastructure.tasks import end_tasks

Command = tuple[str | bytes | int, ...]
TakeCommands = Callable[[], Sequence[Command]]
"""Returns the commands of one source that are to be sent now, and forgets them."""
_CONNECT_SECONDS: Final = 2.0
_SEND_SECONDS: Final = 2.0
"""Time limit for one message and its replies. A Redis that hangs would block the sender forever."""
_PAUSE_SECONDS: Final = 0.2
"""Pause after an error."""


class RedisConnection:
    """One connection, for one caller at a time. It connects when it is first used, and again after an error."""

    def __init__(self, redis_url: str) -> None:
        pool: ConnectionPool = ConnectionPool.from_url(redis_url, socket_connect_timeout=_CONNECT_SECONDS)
        self._connection = pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py leaves this one untyped

    async def execute(self, commands: Sequence[Command], seconds: float) -> list[Any]:
        """Send the commands in one message, and return their replies.

        Raises REDIS_ERRORS, among them TimeoutError after `seconds`. If Redis refuses a command, the others are still executed.
        """
        connection = self._connection
        replies: list[Any] = []
        refused: ResponseError | None = None
        try:
            async with asyncio.timeout(seconds):
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                for _ in commands:
                    try:
                        replies.append(await connection.read_response())
                    except ResponseError as error:
                        refused = error
        except BaseException:
            await self.close()  # replies may still arrive, and must not be taken for those of later commands
            raise
        if refused is not None:
            raise refused
        return replies

    async def close(self) -> None:
        """Disconnect. The next use connects again."""
        await self._connection.disconnect(nowait=True)


class RedisSender:
    """Sends the commands of its sources in the background. Never fails and never blocks its callers.

    While one message is on its way, the next one collects. What cannot be sent is lost.
    """

    def __init__(self, redis_url: str) -> None:
        self._connection = RedisConnection(redis_url)
        self._sources: list[TakeCommands] = []
        self._has_commands = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._outage = Outage("redis_unavailable", note="the sweep finds the work")

    def add_source(self, take: TakeCommands) -> None:
        """Add a source. Its commands are sent behind those of earlier sources."""
        self._sources.append(take)

    def send_soon(self) -> None:
        """Ask the sources for their commands in the next iteration of the event loop, or when the current message is sent."""
        self._has_commands.set()

    def take_commands(self) -> list[Command]:
        """Return what the sources want to send now, and forget it."""
        return [command for take in self._sources for command in take()]

    def start(self) -> None:
        """Start sending."""
        self._task = asyncio.create_task(self._send_all())

    async def close(self) -> None:
        """Stop sending, and drop what was not sent."""
        if self._task is not None:
            await end_tasks(self._task)
        await self._connection.close()

    async def _send_all(self) -> None:
        while True:
            await self._has_commands.wait()
            self._has_commands.clear()
            commands = self.take_commands()
            if not commands:
                continue
            try:
                await self._connection.execute(commands, _SEND_SECONDS)
                self._outage.ended()
            except REDIS_ERRORS as error:
                self._outage.log_once(error)
                await asyncio.sleep(_PAUSE_SECONDS)
