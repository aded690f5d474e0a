"""Show open pages what changes, as server-sent events.

Consoles that were signed in to with the same key and show the same page share it: after a change it is built once, and the
regions that differ are sent to each of them. While nobody looks, nothing is built, and nothing is subscribed to.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Set
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from sandbox.domain.errors import Problem
from sandbox.infrastructure.live_feed import Message
from sandbox.infrastructure.live_subscriber import LiveSubscriber
from sandbox.infrastructure.tasks import end_tasks
from sandbox.server.console.page_parts import ANYTHING, PageParts, parts_of
from sandbox.server.console.security import HEADERS
from sandbox.server.console.view import KEY_MARK, TOKEN_MARK

if TYPE_CHECKING:
    from litestar.types import Receive, Scope, Send

MAX_PER_MERCHANT: Final = 100
"""Maximum number of open consoles with live updates, per merchant and process."""
INTERVAL: Final = 0.2
"""Minimum seconds between two versions of a page: the changes in between are in the second one."""
HEARTBEAT: Final = 15.0
_REST: Final = 9
"""Seconds of rest for each second of work: building pages takes at most a tenth of the process's time."""
_MAX_PAUSE: Final = 15.0
_QUICK: Final = 0.05
"""Seconds that building a page may take without a longer pause."""
_BUILD_SECONDS: Final = 10.0
_CHECK_SECONDS: Final = 5.0
"""Interval in which a console's session is checked."""
_SUBSCRIBE_TIMEOUT: Final = 5.0
_encode: Final = msgspec.json.Encoder().encode
_log = structlog.get_logger()

Build = Callable[[], Awaitable[str | None]]
"""Builds a page as it is now, and returns its HTML; None if it cannot be shown."""


class LivePages:
    """The consoles with live updates in this process. Those of a merchant share a subscription."""

    def __init__(self, subscriber: LiveSubscriber) -> None:
        self._subscriber = subscriber
        self._merchants: dict[str, _Merchant] = {}
        self._turns = asyncio.Lock()

    def open(
        self, merchant_id: str, pages: Mapping[str, Build], token: str, is_valid: Callable[[], Awaitable[bool]]
    ) -> "LiveUpdates":
        """Return a response that sends a console the changed regions of its pages until `is_valid` returns False.

        `pages` are by a key that is the same for all consoles that see the same. `token` is that of the console's forms.
        Raises RATE_LIMITED.
        """
        merchant = self._merchants.get(merchant_id)
        if merchant is not None and len(merchant.consoles) >= MAX_PER_MERCHANT:
            raise Problem("RATE_LIMITED", f"At most {MAX_PER_MERCHANT} pages get live updates.", headers={"Retry-After": "10"})
        return LiveUpdates(self, self._subscriber, merchant_id, pages, token, is_valid)

    def add(self, console: "LiveUpdates") -> None:
        """Send a console its pages, and what changes from now on."""
        merchant = self._merchants.get(console.merchant_id)
        if merchant is None:
            merchant = self._merchants[console.merchant_id] = _Merchant()
            merchant.task = asyncio.create_task(merchant.listen(self._subscriber, console.merchant_id))
        merchant.consoles.add(console)
        for key in console.pages:
            if key not in merchant.pages:
                merchant.pages[key] = _SharedPage(key, self._turns)
            merchant.pages[key].add(console)

    async def remove(self, console: "LiveUpdates") -> None:
        """Forget a console, and its pages and its merchant with their last console."""
        merchant = self._merchants[console.merchant_id]
        merchant.consoles.discard(console)
        ended = []
        for key in console.pages:
            page = merchant.pages[key]
            page.remove(console)
            if not page.consoles:
                ended.append(merchant.pages.pop(key).task)
        if not merchant.consoles:
            del self._merchants[console.merchant_id]
            if merchant.task is not None:
                ended.append(merchant.task)
        await end_tasks(*ended)


class _Merchant:
    """A merchant's consoles, and the pages that they show."""

    def __init__(self) -> None:
        self.consoles: set[LiveUpdates] = set()
        self.pages: dict[str, _SharedPage] = {}
        self.task: asyncio.Task[None] | None = None

    def receive(self, message: Message | None) -> None:
        """Pass on the changes in a message of the live feed. None means that messages were missed."""
        kinds, ids = {ANYTHING}, set()
        if message is not None:
            kinds = {transition.type for transition in message.transitions} | {note.kind for note in message.notes}
            ids = {transition.payout_id for transition in message.transitions}
            ids |= {payout_id for note in message.notes if isinstance(payout_id := note.data.get("payout_id"), str)}
        else:
            for console in self.consoles:
                console.wake()  # the process may be about to end
        for page in self.pages.values():
            page.notice(kinds, ids)

    async def listen(self, subscriber: LiveSubscriber, merchant_id: str) -> None:
        async with subscriber.subscribe(merchant_id, self.receive, _SUBSCRIBE_TIMEOUT):
            await asyncio.Event().wait()


class _SharedPage:
    """A page that is built once for all consoles that show it, at most once per INTERVAL, and never while none does."""

    def __init__(self, key: str, turns: asyncio.Lock) -> None:
        self.consoles: set[LiveUpdates] = set()
        self._new: set[LiveUpdates] = set()
        """The consoles that have not been sent the whole page."""
        self._key = key
        self._turns = turns
        self._parts: PageParts | None = None
        self._is_due = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    def add(self, console: "LiveUpdates") -> None:
        # The console's page was built before it listens, so anything may have changed since.
        self.consoles.add(console)
        self._new.add(console)
        self._is_due.set()

    def remove(self, console: "LiveUpdates") -> None:
        self.consoles.discard(console)
        self._new.discard(console)

    def notice(self, kinds: Set[str], ids: Set[str]) -> None:
        if not self._is_due.is_set() and (self._parts is None or self._parts.is_affected_by(kinds, ids)):
            self._is_due.set()

    async def _run(self) -> None:
        while True:
            await self._is_due.wait()
            # Pages take turns, and the turn lasts for the rest, so many pages cost no more than one.
            async with self._turns:
                started, worked = time.monotonic(), time.thread_time()
                self._is_due.clear()
                await self._build_safely()
                took = time.monotonic() - started
                await asyncio.sleep(_REST * (time.thread_time() - worked))
            # A page that takes the database long comes less often, too. A busy machine alone delays none.
            pause = max(INTERVAL, min(_MAX_PAUSE, _REST * (took - _QUICK)))
            await asyncio.sleep(started + pause - time.monotonic())

    async def _build_safely(self) -> None:
        try:
            async with asyncio.timeout(_BUILD_SECONDS):
                await self._build()
        except Exception:  # one page's defect or delay must not end its updates, or those of others
            _log.exception("live_page_failed")

    async def _build(self) -> None:
        # A console that is added from now on may have been sent a newer page than the one that is built now.
        new = {*self._new}
        html = await next(iter(self.consoles)).pages[self._key]()
        if html is None:
            return
        self._new -= new
        before, self._parts = self._parts, parts_of(html)
        whole, changes = Update(self._parts.changed_since(None)), Update(self._parts.changed_since(before))
        for console in self.consoles:
            console.add(whole if console in new else changes)


class Update:
    """Regions of a page by id, encoded once for all consoles."""

    def __init__(self, regions: Mapping[str, str]) -> None:
        self.regions = regions
        self._encoded: bytes | None = None

    def message(self, token: str) -> bytes:
        """Return the message for a console, whose forms need its own token, and idempotency keys of their own."""
        if self._encoded is None:
            self._encoded = b"event: regions\ndata: " + _encode("".join(self.regions.values())) + b"\n\n"
        keys = secrets.token_hex(8)
        return self._encoded.replace(TOKEN_MARK.encode(), token.encode()).replace(KEY_MARK.encode(), keys.encode())


class LiveUpdates:
    """The response to one console: the regions of its pages whenever they change. A console that does not read loses it."""

    def __init__(
        self,
        live: LivePages,
        subscriber: LiveSubscriber,
        merchant_id: str,
        pages: Mapping[str, Build],
        token: str,
        is_valid: Callable[[], Awaitable[bool]],
    ) -> None:
        self.merchant_id = merchant_id
        self.pages = pages
        self._live = live
        self._subscriber = subscriber
        self._token = token
        self._is_valid = is_valid
        self._update: Update | None = None
        self._has_news = asyncio.Event()
        self._has_ended = False
        """Whether the session has ended."""

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Send updates until the client disconnects, the session ends or the process shuts down."""
        self._live.add(self)
        tasks = [asyncio.create_task(self._write(send)), asyncio.create_task(_wait_for_disconnect(receive))]
        session = asyncio.create_task(self._wait_for_end_of_session())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(*tasks, session)
            await self._live.remove(self)

    def add(self, update: Update) -> None:
        """Send this with the next message. For a slow client, only the newest version of each region is kept."""
        if not update.regions:
            return
        self._update = update if self._update is None else Update({**self._update.regions, **update.regions})
        self._has_news.set()

    def wake(self) -> None:
        """Check whether to end."""
        self._has_news.set()

    async def _write(self, send: "Send") -> None:
        headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        headers.append((b"content-type", b"text/event-stream; charset=utf-8"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while not self._subscriber.closing and not self._has_ended:
            await send({"type": "http.response.body", "body": await self._next(), "more_body": True})
        end = b"event: ended\ndata: {}\n\n" if self._has_ended else b""
        await send({"type": "http.response.body", "body": end, "more_body": False})

    async def _next(self) -> bytes:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT):
                await self._has_news.wait()
        self._has_news.clear()
        update, self._update = self._update, None
        return b": heartbeat\n\n" if update is None else update.message(self._token)

    async def _wait_for_end_of_session(self) -> None:
        while await self._is_valid():  # noqa: ASYNC110 -- the end of a session has no event in this process
            await asyncio.sleep(_CHECK_SECONDS)
        self._has_ended = True
        self._has_news.set()


async def _wait_for_disconnect(receive: "Receive") -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
