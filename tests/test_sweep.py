"""The next worker finds work that a dead worker left unfinished, for frozen merchants too."""

import asyncio
import uuid
from datetime import UTC, datetime

import asyncpg

from sandbox.infrastructure.db.engine import close_pool, open_pool
from tests.harness.plans import Database
from tests.harness.receiver import Receiver
from tests.harness.work import pooled
from tests.harness.world import Stack, World
from worker.sweep import frozen_merchants_with_due_deliveries, merchants_with_work

DUE = datetime(2031, 1, 1, tzinfo=UTC)
"""The time at which row 20 of each table that the harness fills is due."""


async def test_the_orphaned_delivery_of_a_frozen_merchant_is_found(stack: Stack, receiver: Receiver) -> None:
    async with pooled(stack.database_url, 2):
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


async def test_due_payouts_and_deliveries_are_found_in_running_worlds(stack: Stack) -> None:
    """Each of three merchants has a due payout and a due delivery, and many rows that are not due."""
    database = Database(stack.database_url, f"sweep_{uuid.uuid4().hex}")
    await database.create()
    try:
        await database.fill(1, 3, 20)
        await open_pool(database.url, 2)
        conn = await asyncpg.connect(database.url)
        try:
            merchant_ids = [f"00000000-0000-7000-8000-00000000000{number}" for number in (1, 2, 3)]
            assert (await merchants_with_work(DUE.replace(year=2030)))[0] == []
            assert sorted((await merchants_with_work(DUE))[0]) == merchant_ids
            await conn.execute("UPDATE worlds SET clock_frozen_at = now() WHERE merchant_id = $1", merchant_ids[0])
            await conn.execute("UPDATE webhook_deliveries SET next_attempt_at = NULL WHERE merchant_id = $1", merchant_ids[1])
            await conn.execute("UPDATE payouts SET due_at = NULL WHERE merchant_id = $1", merchant_ids[2])
            assert sorted((await merchants_with_work(DUE))[0]) == merchant_ids[1:]
            await conn.execute("UPDATE webhook_endpoints SET status = 'DISABLED' WHERE merchant_id = $1", merchant_ids[2])
            assert (await merchants_with_work(DUE))[0] == [merchant_ids[1]]
            await conn.execute("UPDATE worlds SET clock_offset = '-1 s' WHERE merchant_id = $1", merchant_ids[1])
            assert (await merchants_with_work(DUE))[0] == []
        finally:
            await conn.close()
            await close_pool()
    finally:
        await database.drop()
