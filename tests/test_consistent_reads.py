"""A response that is built from several statements shows one moment, even if a worker writes in between."""

import asyncio

import asyncpg
import pytest

from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World

BLOCKED = "SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid)) AND query LIKE '%' || $2 || '%'"
DELIVERY = "/api/v1/webhook-deliveries/{id}"


@pytest.mark.parametrize(
    ("path", "table", "statement"),
    [
        (DELIVERY, "webhook_attempts", "newest ORDER BY attempt"),
        (f"{DELIVERY}/explain", "webhook_attempts", "newest ORDER BY attempt"),
        ("/api/v1/events/{event_id}", "webhook_deliveries", "webhook_deliveries"),
        ("/sandbox/v1/clock/due", "webhook_deliveries", "ORDER BY l.next_attempt_at"),
    ],
    ids=["delivery", "explanation", "event", "due work"],
)
async def test_a_response_shows_one_moment(world: World, receiver: Receiver, path: str, table: str, statement: str) -> None:
    """A later statement of the read waits for a lock, while another session deletes the rows that it would read."""
    world.client.post("/sandbox/v1/clock/freeze")
    receiver.respond = lambda _: (503, {}, b"")
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.created"]})
    world.create_payout("0004")
    failed = "/api/v1/webhook-deliveries?status=PENDING"
    (delivery,) = until(lambda: [one for one in world.get(failed).json()["data"] if one["attempt_count"] == 1])
    # The explanation shows the request, which is in the journal a moment later.
    until(lambda: world.get("/sandbox/v1/requests?path=/api/v1/payouts").json()["data"])
    path = path.format(**delivery)
    before = world.get(path).json()

    other_session = await asyncpg.connect(world.stack.database_url)
    try:
        async with other_session.transaction():
            await other_session.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            reading = asyncio.create_task(asyncio.to_thread(world.get, path))
            is_blocked = (BLOCKED, other_session.get_server_pid(), statement)
            await asyncio.to_thread(until, lambda: world.stack.execute(*is_blocked))
            await other_session.execute(f"DELETE FROM {table} WHERE merchant_id = $1", world.merchant_id)
        assert (await reading).json() == before
        assert world.get(path).json() != before
    finally:
        await other_session.close()
