"""Tell open pages what has changed, as server-sent events. The pages then fetch themselves again."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.console.security import HEADERS
from sandbox.domain.errors import Problem
from sandbox.infrastructure.tasks import end_tasks
from sandbox.live.feed import Message
from sandbox.live.listener import LiveListener

if TYPE_CHECKING:
    from litestar.types import Receive, Scope, Send

MAX_PER_MERCHANT: Final = 100
"""Maximum number of open pages with live updates, per merchant and process."""
INTERVAL: Final = 0.5
"""Minimum seconds between two messages to a page: the changes in between are one message."""
HEARTBEAT: Final = 15.0
_CHECK_SECONDS: Final = 5.0
"""Interval in which a page's session is checked."""
_SUBSCRIBE_TIMEOUT: Final = 5.0
MAX_IDS: Final = 50
_encode: Final = msgspec.json.Encoder().encode


class LivePages:
    """The pages with live updates in this process."""

    def __init__(self, listener: LiveListener) -> None:
        self._listener = listener
        self._open: Counter[str] = Counter()

    def open(self, merchant_id: str, is_valid: Callable[[], Awaitable[bool]]) -> "LiveUpdates":
        """Return a response that tells a page about changes until `is_valid` returns False. Raises RATE_LIMITED."""
        if self._open[merchant_id] >= MAX_PER_MERCHANT:
            raise Problem("RATE_LIMITED", f"At most {MAX_PER_MERCHANT} pages get live updates.", headers={"Retry-After": "10"})
        return LiveUpdates(self._listener, self._open, merchant_id, is_valid)


class LiveUpdates:
    """The response to one page: at most one message per INTERVAL, with kinds of changes and ids of payouts and events."""

    def __init__(
        self, listener: LiveListener, open_pages: Counter[str], merchant_id: str, is_valid: Callable[[], Awaitable[bool]]
    ) -> None:
        self._listener = listener
        self._open = open_pages
        self._merchant_id = merchant_id
        self._is_valid = is_valid
        self._kinds: set[str] = set()
        self._ids: set[str] = set()
        self._changed = asyncio.Event()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Send changes until the client disconnects, the session ends or the process shuts down."""
        self._open[self._merchant_id] += 1
        tasks = [
            asyncio.create_task(self._write(send)),
            asyncio.create_task(_wait_for_disconnect(receive)),
            asyncio.create_task(self._wait_for_end_of_session()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(*tasks)
            self._open[self._merchant_id] -= 1
            if not self._open[self._merchant_id]:
                del self._open[self._merchant_id]

    def receive(self, message: Message | None) -> None:
        """Note what a message of the live feed changes. None means that messages were missed: everything may have changed."""
        if message is None:
            self._kinds.add("*")
        else:
            for transition in message.transitions:
                self._kinds.add(transition.type)
                self._add_id(transition.payout_id)
            for note in message.notes:
                self._kinds.add(note.kind)
                self._add_id(note.data.get("payout_id"))
                self._add_id(note.data.get("event_id"))
        self._changed.set()

    def _add_id(self, found: Any) -> None:
        if isinstance(found, str) and len(self._ids) <= MAX_IDS:
            self._ids.add(found)

    def _message(self) -> bytes:
        # With too many ids, every page may be affected.
        ids = [] if len(self._ids) > MAX_IDS else sorted(self._ids)
        data = {"kinds": sorted(self._kinds), "ids": ids, "all": len(self._ids) > MAX_IDS}
        self._kinds.clear()
        self._ids.clear()
        self._changed.clear()
        return b"event: changed\ndata: " + _encode(data) + b"\n\n"

    async def _write(self, send: "Send") -> None:
        headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        headers.append((b"content-type", b"text/event-stream; charset=utf-8"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with self._listener.subscribe(self._merchant_id, self.receive, _SUBSCRIBE_TIMEOUT):
            # The page was built before this subscription.
            self.receive(None)
            while not self._listener.closing:
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        await self._changed.wait()
                    chunk = self._message()
                except TimeoutError:
                    chunk = b": heartbeat\n\n"
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await asyncio.sleep(INTERVAL)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _wait_for_end_of_session(self) -> None:
        while await self._is_valid():  # noqa: ASYNC110 -- the end of a session has no event in this process
            await asyncio.sleep(_CHECK_SECONDS)


async def _wait_for_disconnect(receive: "Receive") -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
