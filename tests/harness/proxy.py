"""A proxy in front of a store that can freeze: like a store stopped by SIGSTOP, it accepts connections and never responds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Proxy:
    """Forwards bytes to a Unix socket and back while `flows` is set."""

    def __init__(self, target: str) -> None:
        self.port = 0
        self.flows = asyncio.Event()
        self.flows.set()
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def serving(self) -> "AsyncIterator[Proxy]":
        """Accept connections on loopback, on the port `port`."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_unix_connection(self._target)
        for source, sink in ((reader, target_writer), (target_reader, writer)):
            task = asyncio.create_task(self._forward(source, sink))
            self._tasks.add(task)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                await self.flows.wait()
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()
