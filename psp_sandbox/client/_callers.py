"""Sends calls with httpx: one class that blocks, one for asyncio. Everything that they share is in _http."""

import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from psp_sandbox.client._calls import Call
from psp_sandbox.client._http import Address, Retrying, items_of, page_of, result

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
Program = Generator[Call[Any], Any, T]
"""A sequence of calls that both clients can run: it yields calls, gets their results, and returns a result of its own."""


class Pool:
    """The connections to a sandbox. Threads may share them. httpx is loaded with the first call, because that takes time."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._http: httpx.Client | None = None

    def http(self) -> "httpx.Client":
        """Return the client that holds the connections."""
        with self._lock:
            if self._http is None:
                import httpx

                self._http = httpx.Client(**self._address.pool_options())
            return self._http

    def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        with self._lock:
            http, self._http = self._http, None
        if http is not None:
            http.close()


class AsyncPool:
    """The connections to a sandbox, for one event loop. httpx is loaded with the first call, because that takes time."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._http: httpx.AsyncClient | None = None

    def http(self) -> "httpx.AsyncClient":
        """Return the client that holds the connections."""
        if self._http is None:
            import httpx

            self._http = httpx.AsyncClient(**self._address.pool_options())
        return self._http

    async def close(self) -> None:
        """Close the connections. The next call opens new ones."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()


class Caller:
    """Sends calls with the keys of one caller, and blocks until the response."""

    def __init__(self, address: Address, pool: Pool) -> None:
        self.address = address
        self.pool = pool

    def send(self, call: Call[T]) -> T:
        """Send a call, and return its result. Raises ProblemError, Unreachable or UnexpectedResponse."""
        import httpx

        request = self.address.request(call)
        retrying = Retrying(self.address, call)
        while True:
            try:
                response = self.pool.http().request(**request)
            except httpx.TransportError as error:
                pause: float | None = retrying.after_error(error)
            else:
                pause = retrying.after_response(response)
                if pause is None:
                    return result(call, response)
            time.sleep(pause or 0.0)

    def pages(self, call: Call[T]) -> Iterator[T]:
        """Yield the items of all pages. A page is requested when the first of its items is needed."""
        cursor: str | None = None
        while True:
            items, cursor = items_of(call, self.send(page_of(call, cursor)))
            yield from items
            if cursor is None:
                return

    def run(self, program: Program[T]) -> T:
        """Run a program, and return its result. Raises what its calls raise."""
        answer: Any = None
        while True:
            try:
                call = program.send(answer)
            except StopIteration as end:
                ended: T = end.value
                return ended
            answer = self.send(call)

    def with_key(self, api_key: str) -> "Caller":
        """Return a caller with another merchant's key that shares the connections."""
        return Caller(replace(self.address, keys={**self.address.keys, "merchant": api_key}), self.pool)


class AsyncCaller:
    """Sends calls with the keys of one caller, on an event loop."""

    def __init__(self, address: Address, pool: AsyncPool) -> None:
        self.address = address
        self.pool = pool

    async def send(self, call: Call[T]) -> T:
        """Send a call, and return its result. Raises ProblemError, Unreachable or UnexpectedResponse."""
        import asyncio

        import httpx

        request = self.address.request(call)
        retrying = Retrying(self.address, call)
        while True:
            try:
                response = await self.pool.http().request(**request)
            except httpx.TransportError as error:
                pause: float | None = retrying.after_error(error)
            else:
                pause = retrying.after_response(response)
                if pause is None:
                    return result(call, response)
            await asyncio.sleep(pause or 0.0)

    async def pages(self, call: Call[T]) -> AsyncIterator[T]:
        """Yield the items of all pages. A page is requested when the first of its items is needed."""
        cursor: str | None = None
        while True:
            items, cursor = items_of(call, await self.send(page_of(call, cursor)))
            for item in items:
                yield item
            if cursor is None:
                return

    async def run(self, program: Program[T]) -> T:
        """Run a program, and return its result. Raises what its calls raise."""
        answer: Any = None
        while True:
            try:
                call = program.send(answer)
            except StopIteration as end:
                ended: T = end.value
                return ended
            answer = await self.send(call)

    def with_key(self, api_key: str) -> "AsyncCaller":
        """Return a caller with another merchant's key that shares the connections."""
        return AsyncCaller(replace(self.address, keys={**self.address.keys, "merchant": api_key}), self.pool)
