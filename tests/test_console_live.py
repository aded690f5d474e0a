"""Live updates are bounded: one subscription per merchant, changes in batches, a limited number of pages."""

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
from sandbox.server.console.live import MAX_IDS, LivePages, LiveUpdates


class Feed:
    """Stands in for the subscription to Redis: counts subscriptions, and passes messages on."""

    closing = False

    def __init__(self) -> None:
        self.callbacks: list[Callback] = []
        self.is_subscribed = asyncio.Event()

    @asynccontextmanager
    async def subscribe(self, _merchant_id: str, callback: Callback, _max_wait: float) -> AsyncIterator[bool]:
        self.callbacks.append(callback)
        self.is_subscribed.set()
        try:
            yield True
        finally:
            self.callbacks.remove(callback)

    def publish(self, *payout_ids: str) -> None:
        transitions = [Transition(id_, None, "PENDING", "e", "payout.created", "now", "api") for id_ in payout_ids]
        for callback in self.callbacks:
            callback(Message(transitions, [Note("webhook.attempted", {"payout_id": payout_ids[0]})]))


class Client:
    """A browser that reads a page's updates."""

    def __init__(self, updates: LiveUpdates) -> None:
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._gone = asyncio.Event()
        self.task = asyncio.create_task(updates({}, self._receive, self._send))  # type: ignore[arg-type, typeddict-item]  # no scope is needed

    async def _receive(self) -> Any:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        body = message.get("body", b"")
        if body.startswith(b"event: changed"):
            self.messages.put_nowait(json.loads(body.partition(b"data: ")[2]))

    async def next(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.messages.get(), 20)

    async def leave(self) -> None:
        self._gone.set()
        await self.task


async def is_valid() -> bool:
    return True


async def test_pages_of_a_merchant_share_a_subscription_and_get_changes_in_batches() -> None:
    feed = Feed()
    pages = LivePages(feed)  # type: ignore[arg-type]  # a stand-in
    clients = [Client(pages.open("m", is_valid)) for _ in range(3)]
    await feed.is_subscribed.wait()
    for client in clients:
        assert (await client.next())["kinds"] == ["*"]
    feed.publish("p1")
    feed.publish("p2", "p3")
    for client in clients:
        assert await client.next() == {
            "kinds": ["payout.created", "webhook.attempted"], "ids": ["p1", "p2", "p3"], "all": False,
        }  # fmt: skip
        assert client.messages.empty()
    assert len(feed.callbacks) == 1
    for client in clients:
        await client.leave()
    assert feed.callbacks == []


async def test_changes_of_many_payouts_are_changes_of_all() -> None:
    feed = Feed()
    client = Client(LivePages(feed).open("m", is_valid))  # type: ignore[arg-type]  # a stand-in
    await feed.is_subscribed.wait()
    await client.next()
    feed.publish(*(f"p{number}" for number in range(10 * MAX_IDS)))
    found = await client.next()
    assert (found["all"], found["ids"]) == (True, [])
    await client.leave()


async def test_the_number_of_pages_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_PER_MERCHANT", 2)
    feed = Feed()
    pages = LivePages(feed)  # type: ignore[arg-type]  # a stand-in
    clients = [Client(pages.open("m", is_valid)) for _ in range(2)]
    for client in clients:
        await client.next()
    with pytest.raises(Problem, match="RATE_LIMITED"):
        pages.open("m", is_valid)
    pages.open("another", is_valid)
    await clients[0].leave()
    pages.open("m", is_valid)
    await clients[1].leave()
