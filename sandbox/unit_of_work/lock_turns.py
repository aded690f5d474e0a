"""Limit how many transactions of single merchants run at the same time. Each may wait for its merchant's lock.

A merchant has one place at most. While its lock is held elsewhere, it gives up its place after LOCK_TURN seconds, and waits for
the next one. With L such merchants, each waits for at most ⌈L / PLACES⌉ turns.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, TypeVar

from asyncpg import LockNotAvailableError

from sandbox.domain.errors import CONTENTION, unavailable
from sandbox.infrastructure.large_work import Turns

T = TypeVar("T")

PLACES: Final = 2
"""Maximum number of these transactions on each node. Each holds a connection, and other requests need some too."""
MAX_WAITING: Final = 1000
"""Maximum number of a merchant's transactions that wait for a place; other requests get RATE_LIMITED."""
_MAX_LOCK_SECONDS: Final = 60.0
"""Maximum time that a transaction waits for a lock, over all its turns."""


class LockTurns:
    """The places of one process."""

    def __init__(self, node_of: Callable[[str], Hashable]) -> None:
        """`node_of` returns a merchant's node. Merchants on a node that does not respond take no places of other nodes."""
        self._node_of = node_of
        self._turns: dict[tuple[Hashable, bool], Turns] = {}
        """By node, and by whether the transactions are large."""

    def are_taken(self, merchant_id: str) -> bool:
        """Return whether a transaction of the merchant would have to wait for a place."""
        return not self._turns_of(merchant_id, is_large=False).has_place(merchant_id)

    async def run(self, merchant_id: str, transaction: Callable[[], Awaitable[T]], *, is_large: bool = False) -> T:
        """Run a transaction when it is the merchant's turn, again if it raises LockNotAvailableError. Large ones run singly.

        Raises UNAVAILABLE after _MAX_LOCK_SECONDS, and RATE_LIMITED if too many of the merchant's transactions wait.
        """
        turns = self._turns_of(merchant_id, is_large=is_large)
        clock = asyncio.get_running_loop().time
        deadline = clock() + _MAX_LOCK_SECONDS
        while True:
            try:
                async with turns.place(merchant_id):
                    return await transaction()
            except LockNotAvailableError:
                if clock() >= deadline:
                    raise unavailable(f"{CONTENTION} Nothing was done.") from None

    def _turns_of(self, merchant_id: str, *, is_large: bool) -> Turns:
        node = self._node_of(merchant_id)
        return self._turns.setdefault((node, is_large), Turns(1 if is_large else PLACES, MAX_WAITING))
