"""Vendors that hang keep no other merchant's poll waiting."""

import asyncio
import contextlib

from sandbox.aggregator.clients import OwnVendor
from sandbox.aggregator.poll import Poller
from sandbox.feed.service import FeedService
from sandbox.infrastructure.secrets_at_rest import SecretBox
from worker.aggregate import MAX_HTTP_POLLS, MAX_OWN_POLLS, AggregateLoop


class Hanging(Poller):
    """More merchants than are polled at once have a vendor that never answers; others read our own feed."""

    def __init__(self) -> None:
        own = OwnVendor(FeedService())
        super().__init__(SecretBox(bytes(32)), own, own)
        self.own = [f"own-{number}" for number in range(MAX_OWN_POLLS)]
        self.hanging: set[str] = set()
        self.over = asyncio.Event()

    async def due(self, http_at_most: int, own_at_most: int) -> tuple[list[str], list[str]]:
        return [f"http-{number}" for number in range(MAX_HTTP_POLLS + 10)][:http_at_most], self.own[:own_at_most]

    async def poll(self, merchant_id: str) -> bool:
        if merchant_id.startswith("http"):
            self.hanging.add(merchant_id)
            await asyncio.Event().wait()
        self.own.remove(merchant_id)
        if not self.own:
            self.over.set()
        return False


async def test_vendors_that_hang_take_nothing_from_who_reads_our_own_feed() -> None:
    poller = Hanging()
    loop = AggregateLoop(poller)
    running = asyncio.create_task(loop.run())
    await asyncio.wait_for(poller.over.wait(), 120)
    assert len(poller.hanging) == MAX_HTTP_POLLS
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await loop.stop(0)
