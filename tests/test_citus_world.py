"""What reads or writes a merchant's rows in bulk works on a Citus cluster, also between merchants of different nodes."""

import httpx
import pytest

from tests.harness.citus import NODES, WORKERS, CitusCluster
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.test_reset_and_snapshots import fill, read_all
from tests.test_world_bundles import comparable, exported, import_into

pytestmark = pytest.mark.slow


def test_a_world_is_restored_copied_to_another_node_reset_and_deleted(citus: CitusCluster, receiver: Receiver) -> None:
    """Bulk credits, batches, snapshots, bundles, resets and deletions."""
    stacks = [citus.sandbox(entry) for entry in NODES]
    with (
        citus.create_world_on(WORKERS[0], stacks[0], opening_balance="1000000.00") as world,
        citus.create_world_on(WORKERS[1], stacks[1]) as other,
    ):
        user_id = fill(world, receiver)
        batch = [world.payout_body("0003") for _ in range(20)]
        results = world.post("/api/v1/payouts/batch", {"payouts": batch}).json()["results"]
        assert [result["status"] for result in results] == [201] * len(batch)
        assert world.post("/sandbox/v1/drain").json()["drained"]
        snapshot_id = world.post("/sandbox/v1/snapshots", {"name": "filled"}).json()["id"]
        shown, bundle = read_all(world), exported(world)

        world.create_payout()
        assert world.post(f"/api/v1/users/{user_id}/transactions", {"type": "EARNED", "amount": "1.00"}).status_code == 201
        assert read_all(world) != shown
        assert world.client.post(f"/sandbox/v1/snapshots/{snapshot_id}/restore").status_code == 200
        assert read_all(world) == shown
        world.assert_clean()

        import_into(other, bundle)
        assert comparable(exported(other)) == comparable(bundle)
        assert read_all(other) == shown
        other.assert_clean()

        assert other.client.post("/sandbox/v1/reset").json()["balance"]["balance"] == "1000000.00"
        assert other.get("/api/v1/payouts").json()["data"] == []
        other.assert_clean()
        assert read_all(world) == shown

        url = f"{stacks[2].api_url}/sandbox/v1/merchants/{other.merchant_id}"
        deleted = httpx.delete(url, headers={"X-ADMIN-KEY": stacks[2].admin_key, "X-API-KEY": other.api_key}, timeout=60)
        assert deleted.status_code == 204, deleted.text

        def statuses() -> list[int]:
            headers = {"X-API-KEY": other.api_key}
            return [httpx.get(f"{stack.api_url}/api/v1/balance", headers=headers, timeout=60).status_code for stack in stacks]

        until(lambda: statuses() == [401] * len(stacks))
        for table in ("merchants", "payouts", "transfers", "webhook_deliveries", "snapshot_rows"):
            assert world.stack.execute(f"SELECT FROM {table} WHERE merchant_id = $1", other.merchant_id) == []
        world.assert_clean()
