"""A webhook receiver in a separate process, so that its CPU time delays neither side of a comparison."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Final, cast

import httptools
import uvloop

from sandbox.cli.benches.child import Pipe, run_child
from sandbox.cli.benches.receiver import ServedConnection
from sandbox.cli.benches.stack import BenchError
from sandbox.webhooks.signing.standard_webhooks import ID_HEADER

_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_ID: Final = ID_HEADER.encode()
_ARRIVE_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.005


class Sink:
    """Counts the webhooks that arrive at the receiver's process."""

    def __init__(self, pipe: Pipe, url: str) -> None:
        self.url = url
        self._pipe = pipe

    def reset(self) -> None:
        """Forget what has arrived."""
        self._pipe.send("reset")
        self._pipe.receive()

    def wait(self, count: int) -> float:
        """Wait until `count` different webhooks have arrived. Return when the first did, on the clock of `perf_counter`.

        Raises BenchError if they do not arrive in time.
        """
        deadline = time.monotonic() + _ARRIVE_SECONDS
        while True:
            self._pipe.send("count")
            arrived, first_at = cast("tuple[int, float]", self._pipe.receive())
            if arrived >= count:
                return first_at
            if time.monotonic() > deadline:
                raise BenchError(f"{count - arrived} of {count} webhooks had not arrived after {_ARRIVE_SECONDS:.0f} seconds.")
            time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def run_sink() -> Iterator[Sink]:
    """Run a receiver that responds to every request with an empty 200."""
    with run_child(_serve) as pipe:
        port, _ = pipe.receive()
        yield Sink(pipe, f"http://127.0.0.1:{port}/")


class _Arrivals:
    """The webhooks that have arrived so far."""

    def __init__(self) -> None:
        self.ids: set[bytes] = set()
        self.first_at = 0.0

    def add(self, message_id: bytes) -> None:
        if not self.ids:
            self.first_at = time.perf_counter()
        self.ids.add(message_id)


def _serve(pipe: Pipe) -> None:
    """Receive webhooks, and answer the parent's questions, until it closes the pipe."""

    async def run() -> None:
        arrivals = _Arrivals()
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        server = await loop.create_server(lambda: _Connection(arrivals), "127.0.0.1", 0, backlog=1024)

        def answer() -> None:
            try:
                question = pipe.receive()
            except BenchError:
                ended.set()
                return
            if question == "reset":
                arrivals.ids.clear()
            pipe.send((len(arrivals.ids), arrivals.first_at))

        loop.add_reader(pipe.fileno(), answer)
        pipe.send((server.sockets[0].getsockname()[1], 0.0))
        await ended.wait()

    uvloop.run(run())


class _Connection(ServedConnection):
    """One connection. It uses the bare protocol, because even in its own process it shares the machine's cores."""

    def __init__(self, arrivals: _Arrivals) -> None:
        super().__init__(set())
        self._arrivals = arrivals
        self._parser = httptools.HttpRequestParser(self)
        self._id = b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    # httptools calls these.

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == _ID:
            self._id = value

    def on_message_complete(self) -> None:
        assert self._transport is not None
        self._transport.write(_OK)
        self._arrivals.add(self._id)
