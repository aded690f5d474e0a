"""The next worker finds work that a dead worker left unfinished, for frozen merchants too."""

import asyncio

from sandbox.db.engine import close_pool, open_pool
from tests.harness.receiver import Receiver
from tests.harness.world import Stack, World
from worker.sweep import frozen_merchants_with_due_deliveries


async def test_the_orphaned_delivery_of_a_frozen_merchant_is_found(stack: Stack, receiver: Receiver) -> None:
    await open_pool(stack.database_url, 2)
    try:
        with World.create(stack, opening_balance="100.00") as world, World.create(stack, opening_balance="100.00") as idle:
            for merchant in (world, idle):
                merchant.client.post("/sandbox/v1/clock/freeze", json={})
                merchant.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.created"]})
                merchant.create_payout("0004", amount="1.00")
                assert merchant.client.post("/sandbox/v1/drain").json()["drained"]
            assert not {world.merchant_id, idle.merchant_id} & set(await frozen_merchants_with_due_deliveries())
            due = (
                "UPDATE webhook_deliveries d SET status = 'PENDING', leased_until = now() + interval '1 hour', "
                "next_attempt_at = w.clock_frozen_at FROM worlds w "
                "WHERE d.merchant_id = $1 AND w.merchant_id = $1 RETURNING d.id"
            )
            assert await asyncio.to_thread(stack.execute, due, world.merchant_id)
            found = await frozen_merchants_with_due_deliveries()
            assert (world.merchant_id in found, idle.merchant_id in found) == (True, False)
    finally:
        await close_pool()
