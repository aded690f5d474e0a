"""A server on loopback that leaves nothing behind: at its end no handler runs and no connection is open."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

ConnectionHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def accepting(
    handler: ConnectionHandler, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, grace_seconds: float = 0.0
) -> AsyncIterator[int]:
    """Run the handler for each connection to a free port, and yield the port. The connection is closed after the handler.

    At the end, the handlers have `grace_seconds` to return, then they are cancelled. Raises what a handler raised, unless the
    client had disconnected.
    """
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
    ended = False

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has disconnected
        finally:
            writer.close()

    # Not a coroutine function: asyncio would create its task, and its callback raises if the task is cancelled.
    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if ended:  # the connection was accepted just before the listener was closed
            writer.transport.abort()
        else:
            connections[asyncio.create_task(handle(reader, writer))] = writer

    server = await asyncio.start_server(connected, host, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        ended = True
        server.close()
        if connections:
            await asyncio.wait(connections, timeout=grace_seconds)
        for task, writer in connections.items():
            task.cancel()
            writer.transport.abort()
        results = await asyncio.gather(*connections, return_exceptions=True)
        for writer in connections.values():
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        for result in results:
            if isinstance(result, Exception):
                raise result
