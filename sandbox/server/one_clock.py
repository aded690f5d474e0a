"""Let the clocks of applications follow their merchants' clocks: `psp run --one-clock`, `live_process(one_clock=True)`."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from psp_sandbox.testing.one_clock.clock_file import clock_of, digest_of
from psp_sandbox.testing.one_clock.followers import Move, require_all_following
from psp_sandbox.testing.one_clock.library import OneClockError
from sandbox.domain.errors import Problem

_API: Final = "/api/"


class OneClock:
    """The application's side of an advance, and an ASGI layer that knows which of its requests are in progress."""

    def __init__(self, folder: Path, app: ASGIApp) -> None:
        self._folder = folder
        self._app = app
        self._requests: Counter[bytes] = Counter()
        """By digest of the API key."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and count it while it is in progress if it is one that an application makes."""
        if scope["type"] != ScopeType.HTTP or not scope["path"].startswith(_API):
            await self._app(scope, receive, send)
            return
        key = _key_digest(scope["headers"])
        self._requests[key] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._requests[key] -= 1
            if not self._requests[key]:
                del self._requests[key]

    @asynccontextmanager
    async def move(self, merchant_id: str, target: datetime) -> AsyncIterator["OneClockMove | None"]:
        """Yield a move of the application's clocks to a time, or None if they do not follow this merchant's.

        Raises INVALID_STATE if one of the application's processes does not follow.
        """
        clock = clock_of(self._folder, merchant_id)
        if clock is None:
            yield None
            return
        try:
            await asyncio.to_thread(require_all_following, clock)
        except OneClockError as error:
            raise Problem("INVALID_STATE", str(error)) from None
        key = clock.key_digest
        clock.set_moving(True)
        try:
            yield OneClockMove(Move(clock, target, lambda: key in self._requests))
        finally:
            clock.set_moving(False)


class OneClockMove:
    """`Move` for an event loop."""

    def __init__(self, move: Move) -> None:
        self._move = move

    async def next_stop(self) -> datetime:
        """Return the next time at which the application has something to do, or the target."""
        return await asyncio.to_thread(self._move.next_stop)

    async def reach(self, moment: datetime) -> None:
        """Move to a time, and wait until the application has done what was due."""
        await asyncio.to_thread(self._move.reach, moment)


def _key_digest(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    values = {name: value for name, value in headers if name in (b"x-api-key", b"authorization")}
    return digest_of(values.get(b"x-api-key") or values.get(b"authorization", b"").removeprefix(b"Bearer "))
