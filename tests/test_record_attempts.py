"""A delivery that one worker claimed twice is recorded correctly, even if both attempts are recorded together."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from sandbox.domain.clock import RUNNING
from sandbox.webhooks.delivery.outbox import AttemptResult, ClaimedDelivery, ClaimedEndpoint, Exchange, record_attempts
from sandbox.webhooks.outbound.sender import SendResult
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.work import pooled
from tests.harness.world import World


def attempt(delivery_id: str, endpoint_id: str, url: str, lease: datetime) -> AttemptResult:
    """Return a successful attempt (response 200) that was made under the given lease."""
    endpoint = ClaimedEndpoint(url, (b"",), "fast")
    claimed = ClaimedDelivery(delivery_id, "", endpoint_id, endpoint, 1, 1, "", b"", "r", lease, RUNNING, "")
    exchange = Exchange("", None, SendResult(200, {}, "", None, 1))
    return AttemptResult(claimed, 1, "SUCCEEDED", None, datetime.now(UTC), exchange)


async def record(database_url: str, merchant_id: str, results: list[AttemptResult]) -> None:
    async with pooled(database_url, 1):
        await record_attempts(merchant_id, results)


@pytest.mark.parametrize("stale_first", [True, False])
def test_the_attempt_with_the_current_lease_sets_the_status(world: World, receiver: Receiver, stale_first: bool) -> None:
    """This happens after a restore, which releases the leases of running attempts."""
    body = {"url": receiver.url, "event_types": ["payout.created"]}
    endpoint_id = world.post("/api/v1/webhook-endpoints", body).json()["id"]
    world.create_payout("0004")
    done = "SELECT id FROM webhook_deliveries WHERE merchant_id = $1 AND status = 'SUCCEEDED'"
    delivery_id = str(until(lambda: world.stack.execute(done, world.merchant_id))[0]["id"])
    lease = datetime(2999, 1, 1, tzinfo=UTC)
    set_pending = (
        "UPDATE webhook_deliveries SET status = 'PENDING', next_attempt_at = $3, leased_until = $3 "
        "WHERE merchant_id = $1 AND id = $2"
    )
    world.stack.execute(set_pending, world.merchant_id, delivery_id, lease)
    results = [attempt(delivery_id, endpoint_id, receiver.url, until_) for until_ in (lease - timedelta(seconds=1), lease)]
    asyncio.run(record(world.stack.database_url, world.merchant_id, results if stale_first else results[::-1]))
    shown = world.get(f"/api/v1/webhook-deliveries/{delivery_id}").json()
    assert (shown["status"], shown["next_attempt_at"]) == ("SUCCEEDED", None)
    assert [one["attempt"] for one in shown["attempts"]] == [1, 2, 3]
