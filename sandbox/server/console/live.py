"""Tell open pages what has changed, as server-sent events. The pages then fetch themselves again."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.domain.errors import Problem
from sandbox.infrastructure.live_feed import Message
from sandbox.infrastructure.live_subscriber import LiveSubscriber
from sandbox.infrastructure.tasks import end_tasks
from sandbox.server.console.security import HEADERS

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
    """The pages with live updates in this process. Pages of the same merchant share one subscription and its work."""

    def __init__(self, subscriber: LiveSubscriber) -> None:
        self._subscriber = subscriber
        self._merchants: dict[str, _Merchant] = {}

    def open(self, merchant_id: str, is_valid: Callable[[], Awaitable[bool]]) -> "LiveUpdates":
        """Return a response that tells a page about changes until `is_valid` returns False. Raises RATE_LIMITED."""
        merchant = self._merchants.get(merchant_id)
        if merchant is not None and len(merchant.pages) >= MAX_PER_MERCHANT:
            raise Problem("RATE_LIMITED", f"At most {MAX_PER_MERCHANT} pages get live updates.", headers={"Retry-After": "10"})
        return LiveUpdates(self, self._subscriber, merchant_id, is_valid)

    def add(self, merchant_id: str, page: "LiveUpdates") -> None:
        """Tell a page about its merchant's changes from now on."""
        merchant = self._merchants.get(merchant_id)
        if merchant is None:
            merchant = self._merchants[merchant_id] = _Merchant()
            merchant.task = asyncio.create_task(merchant.run(self._subscriber, merchant_id))
        merchant.pages.add(page)

    async def remove(self, merchant_id: str, page: "LiveUpdates") -> None:
        """Forget a page, and its merchant with its last page."""
        merchant = self._merchants[merchant_id]
        merchant.pages.discard(page)
        if not merchant.pages:
            del self._merchants[merchant_id]
            if merchant.task is not None:
                await end_tasks(merchant.task)


@dataclass(slots=True)
class _Changes:
    """Changes: kinds of events (`*`: anything may have changed), and ids of payouts."""

    kinds: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)

    def add(self, other: "_Changes") -> None:
        self.kinds |= other.kinds
        if len(self.ids) <= MAX_IDS:
            self.ids |= other.ids

    def add_id(self, payout_id: Any) -> None:
        if isinstance(payout_id, str) and len(self.ids) <= MAX_IDS:
            self.ids.add(payout_id)

    def message(self) -> bytes:
        # With too many ids, every page may be affected.
        has_too_many = len(self.ids) > MAX_IDS
        data = {"kinds": sorted(self.kinds), "ids": [] if has_too_many else sorted(self.ids), "all": has_too_many}
        return b"event: changed\ndata: " + _encode(data) + b"\n\n"


class _Merchant:
    """Collects a merchant's changes, and passes them to all its pages at most once per INTERVAL."""

    def __init__(self) -> None:
        self.pages: set[LiveUpdates] = set()
        self.task: asyncio.Task[None] | None = None
        self._changes = _Changes()
        self._has_changes = asyncio.Event()

    def receive(self, message: Message | None) -> None:
        """Note the changes in a message of the live feed. None means that messages were missed: everything may have changed."""
        changes = self._changes
        if message is None:
            changes.kinds.add("*")
        else:
            for transition in message.transitions:
                changes.kinds.add(transition.type)
                changes.add_id(transition.payout_id)
            for note in message.notes:
                changes.kinds.add(note.kind)
                changes.add_id(note.data.get("payout_id"))
        self._has_changes.set()

    async def run(self, subscriber: LiveSubscriber, merchant_id: str) -> None:
        async with subscriber.subscribe(merchant_id, self.receive, _SUBSCRIBE_TIMEOUT):
            while True:
                await self._has_changes.wait()
                self._has_changes.clear()
                changes, self._changes = self._changes, _Changes()
                for page in self.pages:
                    page.add(changes)
                await asyncio.sleep(INTERVAL)


class LiveUpdates:
    """The response to one page: at most one message per INTERVAL, with the kinds of changes and the payouts' ids."""

    def __init__(
        self, pages: LivePages, subscriber: LiveSubscriber, merchant_id: str, is_valid: Callable[[], Awaitable[bool]]
    ) -> None:
        self._pages = pages
        self._subscriber = subscriber
        self._merchant_id = merchant_id
        self._is_valid = is_valid
        # The page was built before it listens, so anything may have changed since.
        self._changes = _Changes({"*"})
        self._has_changes = asyncio.Event()
        self._has_changes.set()
        self._has_ended = False
        """Whether the session has ended."""

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Send changes until the client disconnects, the session ends or the process shuts down."""
        self._pages.add(self._merchant_id, self)
        tasks = [asyncio.create_task(self._write(send)), asyncio.create_task(_wait_for_disconnect(receive))]
        session = asyncio.create_task(self._wait_for_end_of_session())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(*tasks, session)
            await self._pages.remove(self._merchant_id, self)

    def add(self, changes: _Changes) -> None:
        """Send these changes with the next message. For a slow client, they are added up."""
        self._changes.add(changes)
        self._has_changes.set()

    async def _write(self, send: "Send") -> None:
        headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        headers.append((b"content-type", b"text/event-stream; charset=utf-8"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while not self._subscriber.closing and not self._has_ended:
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await self._has_changes.wait()
                self._has_changes.clear()
                changes, self._changes = self._changes, _Changes()
                chunk = changes.message()
            except TimeoutError:
                chunk = b": heartbeat\n\n"
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        end = b"event: ended\ndata: {}\n\n" if self._has_ended else b""
        await send({"type": "http.response.body", "body": end, "more_body": False})

    async def _wait_for_end_of_session(self) -> None:
        while await self._is_valid():  # noqa: ASYNC110 -- the end of a session has no event in this process
            await asyncio.sleep(_CHECK_SECONDS)
        self._has_ended = True
        self._has_changes.set()


async def _wait_for_disconnect(receive: "Receive") -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
