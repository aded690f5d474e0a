"""A vendor that hangs does not delay the polls of merchants that read the sandbox's own feed."""

import asyncio
import contextlib

from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.users.aggregator.feed_clients import OwnVendor
from sandbox.users.aggregator.poll import Poller
from sandbox.users.vendor_feed.service import FeedService
from worker.aggregate import MAX_HTTP_POLLS, MAX_OWN_POLLS, AggregateLoop


class HangingVendors(Poller):
    """Finds more due merchants with an unresponsive vendor than can be polled at a time, and some that read our own feed."""

    def __init__(self) -> None:
        own = OwnVendor(FeedService())
        super().__init__(SecretBox(bytes(32)), own, own)
        self.own_feed_due = [f"own-{number}" for number in range(MAX_OWN_POLLS)]
        self.hanging: set[str] = set()
        self.own_feed_done = asyncio.Event()

    async def due(self, http_at_most: int, own_at_most: int) -> tuple[list[str], list[str]]:
        return [f"http-{number}" for number in range(MAX_HTTP_POLLS + 10)][:http_at_most], self.own_feed_due[:own_at_most]

    async def poll(self, merchant_id: str) -> bool:
        if merchant_id.startswith("http"):
            self.hanging.add(merchant_id)
            await asyncio.Event().wait()
        self.own_feed_due.remove(merchant_id)
        if not self.own_feed_due:
            self.own_feed_done.set()
        return False


async def test_hanging_vendors_do_not_delay_merchants_that_read_our_own_feed() -> None:
    poller = HangingVendors()
    loop = AggregateLoop(poller, lambda merchant_id, notes: None)
    running = asyncio.create_task(loop.run())
    await asyncio.wait_for(poller.own_feed_done.wait(), 120)
    assert len(poller.hanging) == MAX_HTTP_POLLS
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await loop.stop(0)
