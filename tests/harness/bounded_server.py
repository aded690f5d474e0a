"""Serve a test application with given limits: in a thread on loopback, or as a single connection in virtual time."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from uvicorn.server import ServerState

from sandbox.http.hosts import host_check
from sandbox.server.protocol import BoundedProtocol, Limits
from sandbox.server.serve import Server, uvicorn_config

PUBLIC_URL = "http://sandbox.test"
OWN_HOSTS = ("sandbox.test", "x")


@contextlib.contextmanager
def serving(app: Any, limits: Limits) -> Iterator[str]:
    """Serve an ASGI application and yield its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(uvicorn_config(app, PUBLIC_URL, OWN_HOSTS, limits, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


class _Loop:
    """The running event loop, with a clock that the test sets."""

    def __init__(self) -> None:
        self._real = asyncio.get_running_loop()
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return self._real.call_later(1e6, callback)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _Transport(asyncio.Transport):
    """A transport that records the written bytes and its state."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.unsent = 0
        self.is_open = True
        self.is_aborted = False
        self.is_reading_active = True

    def write(self, data: Any) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def close(self) -> None:
        self.is_open = False

    def abort(self) -> None:
        self.is_open, self.is_aborted = False, True

    def is_closing(self) -> bool:
        return not self.is_open

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.is_reading_active = False

    def resume_reading(self) -> None:
        self.is_reading_active = True


class Connection:
    """A client's connection to an application, in virtual time. `received` is what the server has sent."""

    def __init__(self, app: Any, limits: Limits, state: ServerState | None = None) -> None:
        config = uvicorn_config(app, PUBLIC_URL, OWN_HOSTS, limits, lifespan="off")
        config.load()
        self._loop = _Loop()
        self._transport = _Transport()
        own: Any = {"limits": limits, "public_url": PUBLIC_URL, "check_host": host_check(OWN_HOSTS)}
        self.protocol = BoundedProtocol(config, state or ServerState(), {}, self._loop, **own)
        self.protocol.connection_made(self._transport)

    @property
    def received(self) -> bytes:
        return self._transport.written

    @property
    def is_open(self) -> bool:
        return self._transport.is_open

    @property
    def is_aborted(self) -> bool:
        return self._transport.is_aborted

    async def send(self, data: bytes) -> None:
        """Send data as the client, then let the application run as far as it can without waiting."""
        self.protocol.data_received(data)
        await self.settle()

    async def settle(self) -> None:
        """Let the application run as far as it can without waiting."""
        for _ in range(10):
            await asyncio.sleep(0)

    def set_unsent(self, size: int) -> None:
        """Pretend that `size` bytes are buffered because the client has not read them yet."""
        self._transport.unsent = size

    async def wait(self, seconds: float) -> None:
        """Advance the virtual time. The server checks its connections once per second."""
        end = self._loop.now + seconds
        while self._loop.now < end:
            self._loop.now = min(self._loop.now + 1.0, end)
            self.protocol.check(self._loop.now)
        await self.settle()
