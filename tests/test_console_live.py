"""Live updates are built once for all consoles that show a page, at most once per interval, only what changed, and bounded."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sandbox.domain.errors import Problem
from sandbox.infrastructure.live_feed import Message, Note, Transition
from sandbox.infrastructure.live_subscriber import Callback
from sandbox.server.console import live
from sandbox.server.console.live import LivePages, LiveUpdates
from sandbox.server.console.page_parts import parts_of
from sandbox.server.console.view import KEY_MARK, TOKEN_MARK


class Feed:
    """Stands in for the subscription to Redis: counts subscriptions, and passes messages on."""

    closing = False

    def __init__(self) -> None:
        self.callbacks: list[Callback] = []

    @asynccontextmanager
    async def subscribe(self, _merchant_id: str, callback: Callback, _max_wait: float) -> AsyncIterator[bool]:
        self.callbacks.append(callback)
        try:
            yield True
        finally:
            self.callbacks.remove(callback)

    def publish(self, *payout_ids: str, kind: str = "payout.created") -> None:
        transitions = [Transition(id_, None, "PENDING", "e", kind, "now", "api") for id_ in payout_ids]
        for callback in self.callbacks:
            callback(Message(transitions, [Note("webhook.attempted", {"payout_id": payout_ids[0]})]))


class Page:
    """A page with two regions, of which one changes with each payout; counts how often it is built."""

    def __init__(self, about: str = "") -> None:
        self.payouts = 0
        self.built = 0
        self.answer: str | Exception | None = ""
        """What it answers instead of itself, if it is not empty."""
        self._about = f'data-about="{about}"' if about else ""

    async def build(self) -> str | None:
        self.built += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            return None
        form = f'<form id="form" data-region>{TOKEN_MARK} {KEY_MARK}-0 {self.payouts}</form>'
        return f'<body data-refresh="payout."><div id="same" data-region {self._about}>same</div>{form}</body>'


class Client:
    """A browser that reads a page's updates."""

    def __init__(self, updates: LiveUpdates) -> None:
        self.messages: asyncio.Queue[str] = asyncio.Queue()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self._gone = asyncio.Event()
        self.task = asyncio.create_task(updates({}, self._receive, self._send))  # type: ignore[arg-type, typeddict-item]  # no scope is needed

    async def _receive(self) -> Any:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.may_read.wait()
        body = message.get("body", b"")
        if body.startswith(b"event: regions"):
            self.messages.put_nowait(json.loads(body.partition(b"data: ")[2]))

    async def next(self) -> str:
        return await asyncio.wait_for(self.messages.get(), 20)

    async def leave(self) -> None:
        self._gone.set()
        await self.task


async def is_valid() -> bool:
    return True


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
def pages(feed: Feed) -> LivePages:
    return LivePages(feed)  # type: ignore[arg-type]  # a stand-in


def look(pages: LivePages, number: int = 0, merchant_id: str = "m", **shown: Page) -> Client:
    builds = {name: page.build for name, page in shown.items()}
    return Client(pages.open(merchant_id, builds, f"token-{number}", is_valid))


async def test_consoles_share_what_is_built_and_each_gets_its_own_token_and_keys(feed: Feed, pages: LivePages) -> None:
    page = Page()
    clients = [look(pages, number, page=page) for number in range(3)]
    for client in clients:
        assert "same" in await client.next()
    built = page.built
    feed.publish("p1")
    feed.publish("p2", "p3")
    page.payouts = 3
    shown = [await client.next() for client in clients]
    assert page.built == built + 1
    assert len(feed.callbacks) == 1
    for number, html in enumerate(shown):
        assert html.startswith(f'<form id="form" data-region>token-{number} '), "only what changed, with the console's token"
        assert html.endswith("-0 3</form>")
        assert KEY_MARK not in html
    assert len(set(shown)) == 3, "each console has idempotency keys of its own"
    for client in clients:
        await client.leave()
    assert feed.callbacks == []


async def test_a_page_about_other_payouts_is_not_built_and_one_that_is_the_same_is_not_sent(
    feed: Feed, pages: LivePages
) -> None:
    about_one, about_all = Page(about="p1"), Page()
    clients = [look(pages, page=about_one), look(pages, another=about_all)]
    for client in clients:
        await client.next()
    feed.publish("p2")
    await until_built(about_all, 2)
    about_one.payouts = about_all.payouts = 1
    feed.publish("p2")
    assert " 1</form>" in await clients[1].next(), "the first version after the change was the same"
    assert about_one.built == 1
    feed.publish("p1")
    assert " 1</form>" in await clients[0].next()
    for client in clients:
        assert client.messages.empty()
        await client.leave()


async def until_built(page: Page, times: int) -> None:
    """Wait until a page has been built this often."""
    async with asyncio.timeout(20):
        while page.built < times:  # noqa: ASYNC110 -- the page has no event
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("kinds", "ids", "is_affected"),
    [
        ({"*"}, set(), True), ({"payout.created"}, {"p1", "p9"}, True), ({"payout.created"}, {"p9"}, False),
        ({"payout.created"}, set(), True), ({"request"}, {"p1"}, True), ({"requested"}, {"p1"}, False),
        ({"webhook.attempted", "another"}, {"p1"}, False),
    ],
)  # fmt: skip
def test_a_page_says_which_changes_it_shows(kinds: set[str], ids: set[str], is_affected: bool) -> None:
    parts = parts_of('<body data-refresh="payout. request"><p id="a" data-region data-about="p1 e1">x</p></body>')
    assert parts.is_affected_by(kinds, ids) == is_affected


def test_a_region_ends_where_its_element_ends_whatever_its_texts_say() -> None:
    inner = '<div id="b" data-region><div title=" data-region"></div></div>'
    region = f'<div class="x" id="a" data-region>{inner}<br> id data-region</div>'
    html = f'<p> data-region </p>{region}<div id="c" data-same="1" data-region>'
    parts = parts_of(html)
    assert [*parts.regions] == ["a", "c"], "a region inside of another is part of it"
    assert parts.regions["a"].html == region
    again = parts_of(html.replace("<br>", "<hr>").replace("</p>", "</p> "))
    assert [*again.changed_since(parts)] == ["a"]


async def test_a_slow_console_gets_only_the_newest_version_and_delays_no_other(feed: Feed, pages: LivePages) -> None:
    page = Page()
    slow, fast = look(pages, page=page), look(pages, page=page)
    await slow.next()
    await fast.next()
    slow.may_read.clear()
    for number in range(1, 5):
        page.payouts = number
        feed.publish("p1")
        assert f" {number}</form>" in await fast.next()
    slow.may_read.set()
    shown = [await slow.next()]
    while not shown[-1].endswith(" 4</form>"):
        shown.append(await slow.next())
    assert len(shown) <= 2, "the one that was being sent, and the newest"
    await slow.leave()
    await fast.leave()


@pytest.mark.parametrize("answer", [None, ZeroDivisionError("a bug")])
async def test_a_page_that_fails_or_cannot_be_shown_is_tried_again_with_the_next_change(
    feed: Feed, pages: LivePages, answer: Exception | None
) -> None:
    page = Page()
    page.answer = answer
    client = look(pages, page=page)
    await until_built(page, 1)
    page.answer = ""
    feed.publish("p1")
    assert "same" in await client.next(), "the whole page, since nothing was sent before"
    await client.leave()


async def test_nothing_is_built_once_nobody_looks(feed: Feed, pages: LivePages) -> None:
    page = Page()
    client = look(pages, page=page)
    await client.next()
    (callback,) = feed.callbacks
    await client.leave()
    built = page.built
    callback(Message([Transition("p1", None, "PENDING", "e", "payout.created", "now", "api")], []))
    another = look(pages, merchant_id="another", page=Page())
    await another.next()
    assert (page.built, len(feed.callbacks)) == (built, 1)
    await another.leave()


async def test_the_number_of_consoles_is_limited(monkeypatch: pytest.MonkeyPatch, feed: Feed, pages: LivePages) -> None:
    monkeypatch.setattr(live, "MAX_PER_MERCHANT", 2)
    page = Page()
    clients = [look(pages, page=page) for _ in range(2)]
    for client in clients:
        await client.next()
    with pytest.raises(Problem, match="RATE_LIMITED"):
        look(pages, page=page)
    other = look(pages, merchant_id="another", page=page)
    await clients[0].leave()
    again = look(pages, page=page)
    for client in (other, again, clients[1]):
        await client.leave()
