"""Combine reads that wait at the same time into one statement."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_MAX_KEYS: Final = 256
"""Maximum number of keys in one statement."""


class SharedReads(Generic[T]):
    """Reads rows of a merchant by key. Requests that arrive while a statement runs share the next one; there is no timer.

    A request joins only a statement that has not been sent yet. So it sees everything that was committed before it arrived.
    """

    def __init__(self, read: Callable[[str, Sequence[str]], Awaitable[Mapping[str, T]]]) -> None:
        """`read` takes a merchant's id and up to 256 different keys, and returns the rows that exist by key."""
        self._read = read
        self._waiting: dict[str, dict[str, list[asyncio.Future[T | None]]]] = {}
        """The requests that wait for the next statement, by merchant and key."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """The running reader of each merchant that has one."""

    async def get(self, merchant_id: str, key: str) -> T | None:
        """Return a row, or None if it does not exist. Raises the errors of `read`."""
        future: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(merchant_id, {}).setdefault(key, []).append(future)
        if merchant_id not in self._tasks:
            self._tasks[merchant_id] = asyncio.create_task(self._read_all(merchant_id))
        return await future

    async def _read_all(self, merchant_id: str) -> None:
        taken: dict[str, list[asyncio.Future[T | None]]] = {}
        try:
            while merchant_id in self._waiting:
                taken = self._waiting.pop(merchant_id)
                keys = list(taken)
                for start in range(0, len(keys), _MAX_KEYS):
                    await self._read_some(merchant_id, {key: taken[key] for key in keys[start : start + _MAX_KEYS]})
        finally:
            # No await since the loop condition was checked, so no request is left without a reader.
            del self._tasks[merchant_id]
            # If this task was cancelled, cancel the remaining requests, so that none waits forever.
            for future in _pending([*taken.values(), *self._waiting.pop(merchant_id, {}).values()]):
                future.cancel()

    async def _read_some(self, merchant_id: str, waiting: Mapping[str, list[asyncio.Future[T | None]]]) -> None:
        try:
            found = await self._read(merchant_id, list(waiting))
        except Exception as error:
            for future in _pending(waiting.values()):
                future.set_exception(error)
            return
        for key, futures in waiting.items():
            row = found.get(key)
            for future in _pending([futures]):
                future.set_result(row)


def _pending(groups: Iterable[list[asyncio.Future[T | None]]]) -> Iterator[asyncio.Future[T | None]]:
    """Yield the futures whose requests were not cancelled."""
    return (future for futures in groups for future in futures if not future.done())
