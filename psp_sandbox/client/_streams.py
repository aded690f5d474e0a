"""Server-sent events, as iterators."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from psp_sandbox.client._callers import AsyncCaller, Caller
from psp_sandbox.client._calls import Call, query
from psp_sandbox.client._http import Address, failure, unreachable


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event: its type, such as payout.succeeded, its data, and its id, if the log of events has it."""

    type: str
    data: dict[str, Any]
    id: str | None = None


class EventStream:
    """The events of one stream. Iterate over it; close it, or use it in a `with` block, to stop early."""

    def __init__(self, caller: Caller, call: Call[str]) -> None:
        import httpx

        self._address, self._call = caller.address, call
        self._open = ExitStack()
        try:
            response = self._open.enter_context(caller.pool.http().stream(**_request(caller.address, call)))
            if not response.is_success:
                response.read()
                raise failure(response)
            self._lines = response.iter_lines()
            for line in self._lines:
                if line.startswith(":"):  # it is listening
                    break
        except httpx.TransportError as error:
            self.close()
            raise unreachable(self._address, call, error) from error
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[StreamEvent]:
        return self

    def __next__(self) -> StreamEvent:
        import httpx

        parser = _Parser()
        try:
            for line in self._lines:
                event = parser.feed(line)
                if event is not None:
                    return event
        except httpx.TransportError as error:
            self.close()
            raise unreachable(self._address, self._call, error) from error
        self.close()
        raise StopIteration

    def close(self) -> None:
        """End the stream."""
        self._open.close()

    def __enter__(self) -> "EventStream":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncEventStream:
    """The events of one stream. Use it in an `async with` block, and iterate over it in there."""

    def __init__(self, caller: AsyncCaller, call: Call[str]) -> None:
        self._caller, self._call = caller, call
        self._open = AsyncExitStack()
        self._lines: AsyncIterator[str] | None = None

    async def __aenter__(self) -> "AsyncEventStream":
        import httpx

        try:
            stream = self._caller.pool.http().stream(**_request(self._caller.address, self._call))
            response = await self._open.enter_async_context(stream)
            if not response.is_success:
                await response.aread()
                raise failure(response)
            self._lines = response.aiter_lines()
            async for line in self._lines:
                if line.startswith(":"):  # it is listening
                    break
        except httpx.TransportError as error:
            await self.aclose()
            raise unreachable(self._caller.address, self._call, error) from error
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self

    async def __anext__(self) -> StreamEvent:
        import httpx

        if self._lines is None:
            await self.__aenter__()
            assert self._lines is not None
        parser = _Parser()
        try:
            async for line in self._lines:
                event = parser.feed(line)
                if event is not None:
                    return event
        except httpx.TransportError as error:
            await self.aclose()
            raise unreachable(self._caller.address, self._call, error) from error
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the stream."""
        await self._open.aclose()


class _Parser:
    """Collects the lines of one event."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def feed(self, line: str) -> StreamEvent | None:
        """Take a line, and return the event if the line completes one."""
        if line:
            name, _, value = line.partition(":")
            self._fields[name] = value.removeprefix(" ")
            return None
        fields, self._fields = self._fields, {}
        if "data" not in fields:
            return None
        return StreamEvent(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id"))


def stream_call(types: str | None, limit: int | None, timeout: float | None) -> Call[str]:
    """Return the call that opens a stream."""
    parameters = {"types": types, "limit": limit, "timeout": timeout}
    return Call(str, "GET", "/sandbox/v1/stream", query=query(parameters), headers={"Accept": "text/event-stream"})


def _request(address: Address, call: Call[str]) -> dict[str, Any]:
    import httpx

    # A heartbeat comes every 15 s, so a longer silence is a lost connection.
    return {**address.request(call), "timeout": httpx.Timeout(address.timeout, read=max(address.timeout, 30.0))}
