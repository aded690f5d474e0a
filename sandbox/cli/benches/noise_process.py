"""The process that makes the noise of `psp bench neighbors`. Its requests are prepared, so it needs little CPU time."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import httptools
import uvloop

from sandbox.cli.benches.child import Pipe, run_child
from sandbox.cli.benches.connections import Connection, Connections
from sandbox.cli.benches.noise import KINDS, Response, Script, Site
from sandbox.cli.benches.receiver import ServedConnection
from sandbox.cli.benches.stack import BenchError, Merchant, Stack

_PREPARE_SECONDS: Final = 600.0
_STOP_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 0.05
"""The pause after a connection was refused."""
_REASON_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class NoiseTotals:
    """The responses to all requests of the noise."""

    statuses: Mapping[int, int]
    """The number of responses by status; 0 stands for no response."""
    cpu_seconds: float
    """The CPU time of the process that made it."""
    reasons: Mapping[int, str] = field(default_factory=dict)
    """Why: from the first response of each status."""
    unanswered: int = 0
    """Requests that had no response yet when the noise ended."""


class Noise:
    """Noise that is ready."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def start(self) -> None:
        """Begin. Raises BenchError if the process has ended."""
        self._pipe.send("start")

    def stop(self) -> NoiseTotals:
        """Stop, close all connections, and return the totals. Raises BenchError."""
        self._pipe.send("stop")
        totals: NoiseTotals = self._pipe.receive(_STOP_SECONDS)
        return totals


@contextlib.contextmanager
def open_noise(stack: Stack, kind: str, merchants: Sequence[Merchant], connections: int) -> Iterator[Noise]:
    """Prepare noise of a kind in a separate process. The process ends with the block. Raises BenchError."""
    with run_child(_main, stack, kind, list(merchants), connections) as pipe:
        pipe.receive(_PREPARE_SECONDS)
        yield Noise(pipe)


def _main(pipe: Pipe, stack: Stack, kind: str, merchants: list[Merchant], connections: int) -> None:
    site = Site(stack, merchants, connections)
    if fill := KINDS[kind].fill(site):
        uvloop.run(_run_all(stack, fill))
    scripts = KINDS[kind].prepare(site)
    uvloop.run(_serve(pipe, site, scripts))


async def _run_all(stack: Stack, scripts: Sequence[Script]) -> None:
    """Run scripts that end."""
    driver = _Driver(stack)
    await asyncio.gather(*(driver.drive(script) for script in scripts))
    await driver.connections.close()


async def _serve(pipe: Pipe, site: Site, scripts: Sequence[Script]) -> None:
    """Make noise between the messages `start` and `stop`, and answer with the totals."""
    loop = asyncio.get_running_loop()
    for listening, status in site.servers:
        await loop.create_server(partial(_Answer, status), sock=listening)
    messages: asyncio.Queue[None] = asyncio.Queue()

    def on_readable() -> None:
        try:
            pipe.receive()
        except BenchError:
            loop.remove_reader(pipe.fileno())  # the bench has ended
        messages.put_nowait(None)

    loop.add_reader(pipe.fileno(), on_readable)
    pipe.send("ready")
    await messages.get()
    cpu = time.process_time()
    driver = _Driver(site.stack)
    tasks = [asyncio.create_task(driver.drive(script)) for script in scripts]
    await messages.get()
    unanswered = sum(task.cancel() for task in tasks)
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise BenchError(f"The noise failed: {result!r}") from result
    await driver.connections.close()
    pipe.send(NoiseTotals(dict(driver.statuses), time.process_time() - cpu, driver.reasons, unanswered))


class _Driver:
    """Sends what scripts yield, each over its own connection, and counts the responses."""

    def __init__(self, stack: Stack) -> None:
        self.connections = Connections(stack.api_url)
        self.statuses: Counter[int] = Counter()
        self.reasons: dict[int, str] = {}

    async def drive(self, script: Script) -> None:
        """Run a script until it ends. A lost connection is opened again."""
        request = next(script)
        connection: Connection | None = None
        while True:
            try:
                connection = connection or await self.connections.open()
                response = Response(*await connection.exchange(request.encode()))
            except OSError as error:
                response = Response(0, str(error).encode())
            self.statuses[response.status] += 1
            if response.status not in self.reasons:
                self.reasons[response.status] = _reason(response.body)
            try:
                # A connection that can be used again has put itself there.
                self.connections.free.remove(connection)  # type: ignore[arg-type]  # None is in no queue
            except ValueError:
                connection = None
            if response.status == 0:
                await asyncio.sleep(_PAUSE_SECONDS)
            try:
                request = script.send(response)
            except StopIteration:
                return


def _reason(body: bytes) -> str:
    """Return the detail of a problem, or else the beginning of the body."""
    try:
        return str(json.loads(body)["detail"])[:_REASON_CHARACTERS]
    except (ValueError, TypeError, KeyError):
        return body[:_REASON_CHARACTERS].decode("utf-8", "replace")


class _Answer(ServedConnection):
    """Answers every request in the same way."""

    def __init__(self, status: int) -> None:
        super().__init__(set())
        self._response = b"HTTP/1.1 %d Status\r\nContent-Length: 0\r\n\r\n" % status
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """httptools calls this."""
        assert self._transport is not None
        self._transport.write(self._response)
