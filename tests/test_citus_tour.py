"""On a Citus cluster, a sandbox works the same through each node that its DATABASE_URL can name."""

import pytest

from tests.harness.citus import NODES, CitusCluster
from tests.harness.receiver import Receiver
from tests.harness.world import World

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("entry", NODES)
def test_the_tour_of_the_readme(citus: CitusCluster, entry: str, receiver: Receiver) -> None:
    """A payout in virtual time, its events, webhooks and ledger entries, a repeated request, and the audit."""
    with World.create(citus.sandbox(entry), opening_balance="1000000.00") as world:
        world.post("/sandbox/v1/clock/freeze")
        endpoint = world.post("/api/v1/webhook-endpoints", {"url": receiver.url}).json()
        body = world.payout_body("0001", amount="1500.00")
        created = world.post("/api/v1/payouts", body, key="first-payout")
        assert (created.status_code, created.json()["status"]) == (201, "PENDING")
        assert world.post("/api/v1/payouts", body, key="first-payout").content == created.content
        rejected = world.create_payout("0003", amount="20.00")["id"]
        assert world.post("/sandbox/v1/clock/advance", {"seconds": 60}).json()["complete"]

        payout_id = created.json()["id"]
        assert world.path_of(payout_id) == ["PENDING", "PROCESSING", "SUCCESS"]
        assert world.payout(rejected)["failure_code"] == "BANK_REJECTED"
        assert world.balance() == ("998500.00", "0.00")
        listed = world.get("/api/v1/payouts").json()["data"]
        assert [payout["id"] for payout in listed] == [rejected, payout_id]

        events = [f"payout.{name}" for name in ("created", "processing", "succeeded")]
        receiver.wait_for(*events, payout_id=payout_id)
        receiver.wait_for("payout.failed", payout_id=rejected)
        for received in receiver.received:
            received.verify(endpoint["secret"])
        kept = world.get("/api/v1/events", limit=100).json()["data"]
        assert sorted(event["type"] for event in kept if event["data"]["id"] == payout_id) == sorted(events)
        world.assert_clean()
