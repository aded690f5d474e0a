"""Let an application's clocks follow one merchant's clock: `psp run --one-clock`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from psp_sandbox.testing.one_clock.clock_file import ClockFile
from psp_sandbox.testing.one_clock.followers import Move, require_all_following
from psp_sandbox.testing.one_clock.library import OneClockError
from sandbox.domain.errors import Problem

_API: Final = "/api/"


class OneClock:
    """The application's side of an advance, and an ASGI layer that knows which of its requests are in progress."""

    def __init__(self, clock: ClockFile, app: ASGIApp) -> None:
        self._clock = clock
        self._app = app
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and count it while it is in progress if it is one that an application makes."""
        is_counted = scope["type"] == ScopeType.HTTP and scope["path"].startswith(_API)
        self._requests += is_counted
        try:
            await self._app(scope, receive, send)
        finally:
            self._requests -= is_counted

    @asynccontextmanager
    async def move(self, merchant_id: str, target: datetime) -> AsyncIterator["OneClockMove | None"]:
        """Yield a move of the application's clocks to a time, or None if they do not follow this merchant's.

        Raises INVALID_STATE if one of the application's processes does not follow.
        """
        if merchant_id != self._clock.merchant_id:
            yield None
            return
        try:
            await asyncio.to_thread(require_all_following, self._clock)
        except OneClockError as error:
            raise Problem("INVALID_STATE", str(error)) from None
        self._clock.set_moving(True)
        try:
            yield OneClockMove(Move(self._clock, target, lambda: self._requests > 0))
        finally:
            self._clock.set_moving(False)


class OneClockMove:
    """`Move` for an event loop."""

    def __init__(self, move: Move) -> None:
        self._move = move

    def next_stop(self) -> datetime:
        """Return the next time at which the application has something to do, or the target."""
        return self._move.next_stop()

    async def reach(self, moment: datetime) -> None:
        """Move to a time, and wait until the application has done what was due."""
        await asyncio.to_thread(self._move.reach, moment)
