"""A proxy in front of a store that can freeze: like a store stopped by SIGSTOP, it accepts connections and never responds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.harness.stream_server import accepting


class Proxy:
    """Forwards bytes to a Unix socket and back while `flows` is set."""

    def __init__(self, target: str) -> None:
        self.port = 0
        self.flows = asyncio.Event()
        self.flows.set()
        self._target = target

    @contextlib.asynccontextmanager
    async def serving(self) -> "AsyncIterator[Proxy]":
        """Accept connections on loopback, on the port `port`."""
        async with accepting(self._connected) as self.port:
            yield self

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_unix_connection(self._target)
        try:
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._forward(reader, target_writer))
                directions.create_task(self._forward(target_reader, writer))
        finally:
            target_writer.transport.abort()
            with contextlib.suppress(OSError):
                await target_writer.wait_closed()

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
