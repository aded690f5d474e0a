"""Reset, snapshot and restore apply to all data of one merchant, in one transaction, and never to another merchant's data."""

import asyncio
import threading
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from sandbox.infrastructure.db.engine import transaction
from sandbox.payouts.scenarios.builtin import load_catalogue
from sandbox.unit_of_work.claim import ClaimRequest, claim
from sandbox.worlds.merchants.tables import TABLES, WORLD
from sandbox.worlds.snapshots import service, store
from sandbox.worlds.snapshots.store import MAX_SNAPSHOT_ROWS
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.work import pooled
from tests.harness.world import Stack, World

AT = "2031-01-01T00:00:00.000Z"
LISTS = (
    "/api/v1/payouts", "/api/v1/users", "/api/v1/sales", "/api/v1/events", "/api/v1/webhook-deliveries",
    "/api/v1/webhook-endpoints", "/sandbox/v1/faults", "/api/v1/balance/history",
)  # fmt: skip


def fill(world: World, receiver: Receiver) -> str:
    """Create at least one object of each kind, and freeze the clock. Return the id of the user."""
    assert world.post("/api/v1/webhook-endpoints", {"url": receiver.url}).status_code == 201
    rule = {"name": "mine", "match": {"amount_from": "7.00", "amount_to": "7.00"}, "steps": [{"to": "PROCESSING"}]}
    assert world.post("/sandbox/v1/scenarios", rule).status_code == 201
    fault = {"target": "webhooks", "kind": "delay", "milliseconds": 1, "count": 2}
    response = world.post("/sandbox/v1/faults", fault)
    assert response.status_code == 201, response.text
    user_id: str = world.post("/api/v1/users", {"name": "Ayesha"}).json()["id"]
    assert world.post(f"/api/v1/users/{user_id}/transactions", {"type": "EARNED", "amount": "50.25"}).status_code == 201
    assert world.post("/api/v1/sales", {"user_id": user_id, "brand": "A", "earning": "40.00"}).status_code == 201
    content = f"uuid,amount\n{user_id},12.50\n".encode()
    headers = {"X-IDEMPOTENCY-KEY": str(uuid.uuid4())}
    upload = world.client.post("/api/v1/wallet/bulk-credit", files={"file": ("c.csv", content, "text/csv")}, headers=headers)
    activity = f"/api/v1/wallet/bulk-credit/{upload.json()['activity_id']}"
    until(lambda: world.get(activity).json()["status"] == "COMPLETED")
    paid = [world.create_payout(suffix, metadata={"né": '"\\ {}'}) for suffix in ("0001", "0003", "0011")]
    world.wait_for(paid[0]["id"], "SUCCESS")
    world.wait_for(paid[1]["id"], "FAILED")
    world.post("/sandbox/v1/clock/freeze")
    assert world.post("/sandbox/v1/drain").json()["drained"]
    return user_id


def read_all(world: World) -> dict[str, Any]:
    """Return everything that the API shows of a merchant's data."""
    shown: dict[str, Any] = {path: world.get(path, limit=100).json()["data"] for path in LISTS}
    shown["scenarios"] = world.get("/sandbox/v1/scenarios").json()
    for payout in shown["/api/v1/payouts"]:
        shown[payout["id"]] = world.get(f"/api/v1/payouts/{payout['id']}/timeline").json()
    shown["balance"] = world.get("/api/v1/balance").json()
    return shown


def journal_calls(world: World) -> list[str]:
    """Return the method and path of the newest calls in the journal."""
    return [f"{call['method']} {call['path']}" for call in world.get("/sandbox/v1/requests", limit=100).json()["data"]]


def rows(world: World) -> dict[str, list[dict[str, Any]]]:
    """Return the merchant's rows by table.

    Leaves out idempotency keys and vendor cursors, and the id sequence, which taking a snapshot advances.
    """
    found = {
        table: sorted(world.stack.execute(f"SELECT * FROM {table} WHERE merchant_id = $1", world.merchant_id), key=str)
        for table in WORLD
        if table not in ("idempotency_keys", "vendor_cursors")
    }
    for world_row in found["worlds"]:
        del world_row["id_sequence"]
    return found


def test_a_reset_leaves_the_data_of_a_new_merchant_and_its_webhook_endpoints(world: World, receiver: Receiver) -> None:
    fresh = world.get("/sandbox/v1/scenarios").json()
    user_id = fill(world, receiver)
    world.get(f"/api/v1/users/{user_id}/summary")
    assert world.patch("/sandbox/v1/settings", {"default_scenario": "FAILED"}).status_code == 200
    response = world.client.post("/sandbox/v1/reset")
    assert response.status_code == 200, response.text
    assert response.json()["reset"] is True
    assert response.json()["balance"] == world.get("/api/v1/balance").json()
    assert world.balance() == ("1000000.00", "0.00")
    shown = read_all(world)
    assert shown["scenarios"] == fresh
    for path in LISTS:
        assert len(shown[path]) == (1 if path.endswith(("/history", "/webhook-endpoints")) else 0), path
    assert world.get(f"/api/v1/users/{user_id}/summary").status_code == 404
    clock = world.get("/sandbox/v1/clock").json()
    assert (clock["frozen"], clock["offset_seconds"]) == (False, 0)
    default = "SELECT default_scenario FROM worlds WHERE merchant_id = $1"
    assert world.stack.execute(default, world.merchant_id) == [{"default_scenario": "success"}]
    until(lambda: "POST /api/v1/users" not in journal_calls(world))
    world.assert_clean()
    # The merchant still works: a new payout is paid, and the remaining endpoint receives its webhook.
    receiver.received.clear()
    payout = world.create_payout()
    receiver.wait_for("payout.succeeded", payout_id=payout["id"])
    world.assert_clean()


def test_a_merchant_without_an_opening_balance_is_reset_to_zero(stack: Stack) -> None:
    with World.create(stack) as world:
        assert world.post("/sandbox/v1/balance/top-up", {"amount": "5.00"}).status_code == 200
        assert world.client.post("/sandbox/v1/reset").json()["balance"]["balance"] == "0.00"
        world.assert_clean()


def test_the_same_calls_get_the_same_responses_after_a_reset(stack: Stack, receiver: Receiver) -> None:
    def run_script() -> list[bytes]:
        receiver.received.clear()
        assert world.client.post("/sandbox/v1/clock/freeze", json={"at": AT}).json()["now"] == AT
        bodies = []
        for number, suffix in enumerate(("0001", "0002", "0003", "0013")):
            body = world.payout_body(suffix, merchant_reference=f"ref-{number}")
            headers = {"X-Request-Id": f"r{number}"}
            bodies.append(world.post("/api/v1/payouts", body, f"k{number}", headers=headers).content)
        world.client.post("/sandbox/v1/clock/advance", json={"seconds": 1000})
        bodies.append(world.get("/api/v1/events", limit=100).content)
        bodies += [r.headers["x-sandbox-now"].encode() + r.body for r in receiver.received]
        return bodies

    with World.create(stack, opening_balance="5000.00", seed=7, webhook_url=receiver.url) as world:
        first = run_script()
        assert len(first) > 10
        world.client.post("/sandbox/v1/reset")
        assert run_script() == first
        world.client.post("/sandbox/v1/reset")
        world.assert_clean()


def test_an_endpoint_created_after_a_reset_gets_an_unused_id(stack: Stack, receiver: Receiver) -> None:
    """With a seed, the sequence of ids starts again after a reset, but the endpoints remain and keep their ids."""
    with World.create(stack, seed=8, webhook_url=receiver.url) as world:
        for _ in range(3):
            world.client.post("/sandbox/v1/reset")
            world.client.post("/sandbox/v1/clock/freeze", json={"at": AT})
            assert world.post("/api/v1/webhook-endpoints", {"url": receiver.url}, "one").status_code == 201
        assert len(world.get("/api/v1/webhook-endpoints").json()["data"]) == 4


def test_a_restore_brings_back_every_row(world: World, receiver: Receiver) -> None:
    user_id = fill(world, receiver)
    # The aggregator polls by the host's time, even if the merchant's clock is frozen. Wait until it has caught up.
    until(lambda: world.get(f"/aggregator/v1/users/{user_id}").json().get("earned") == "50.25", 60)
    summary = world.get(f"/api/v1/users/{user_id}/summary").json()
    shown, stored = read_all(world), rows(world)
    clock = world.get("/sandbox/v1/clock").json()
    taken = world.client.post("/sandbox/v1/snapshots", json={"name": "full"})
    assert taken.status_code == 201, taken.text
    snapshot = taken.json()
    assert taken.headers["location"] == f"/sandbox/v1/snapshots/{snapshot['id']}"
    assert (snapshot["name"], snapshot["clock_at"]) == ("full", clock["now"])
    assert snapshot["rows"] > sum(len(found) for found in stored.values())  # it also counts the idempotency keys
    for change in ("more data", "reset", "no change"):
        if change == "more data":
            world.client.post("/sandbox/v1/clock/advance", json={"seconds": 100_000})
            world.post(f"/api/v1/users/{user_id}/transactions", {"type": "EARNED", "amount": "1.00"})
            world.create_payout()
            world.client.delete(f"/api/v1/webhook-endpoints/{shown['/api/v1/webhook-endpoints'][0]['id']}")
            world.client.post("/sandbox/v1/clock/resume")
        elif change == "reset":
            world.client.post("/sandbox/v1/reset")
        response = world.client.post(f"/sandbox/v1/snapshots/{snapshot['id']}/restore")
        assert response.status_code == 200, response.text
        assert response.json()["frozen"]
        assert response.json()["now"] == clock["now"]
        assert rows(world) == stored, change
        assert read_all(world) == shown, change
        assert world.get("/sandbox/v1/clock").json() == clock
        assert world.get(f"/api/v1/users/{user_id}/summary").json() == summary
        world.assert_clean()
    # The restored merchant still works.
    world.client.post("/sandbox/v1/clock/resume")
    world.wait_for(world.create_payout()["id"], "SUCCESS")
    world.assert_clean()


def test_each_of_several_snapshots_can_be_restored_in_any_order(world: World) -> None:
    """Each restore brings back exactly the rows of its snapshot, even if the clock was set back in between."""
    taken: list[tuple[str, dict[str, list[Any]]]] = []

    def take() -> None:
        taken.append((world.client.post("/sandbox/v1/snapshots").json()["id"], rows(world)))

    def restore(number: int) -> None:
        snapshot_id, stored = taken[number]
        assert world.client.post(f"/sandbox/v1/snapshots/{snapshot_id}/restore").status_code == 200
        assert rows(world) == stored
        world.assert_clean()

    def create_payout_in(year: int) -> None:
        # The API refuses to set a clock back, so this test writes the time of the frozen clock itself.
        at = datetime(year, 1, 1, tzinfo=UTC)
        world.stack.execute("UPDATE worlds SET clock_frozen_at = $2 WHERE merchant_id = $1", world.merchant_id, at)
        world.create_payout()

    create_payout_in(2031)
    take()
    create_payout_in(2031)
    take()
    restore(0)
    create_payout_in(2020)
    take()
    for number in (1, 2, 0, 2, 1, 0, 1):
        restore(number)
    create_payout_in(2019)
    restore(1)
    restore(0)
    create_payout_in(2031)
    take()
    world.client.post("/sandbox/v1/reset")
    restore(3)
    restore(3)


def test_a_database_user_without_superuser_rights_can_restore_with_all_foreign_keys_checked(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(world, receiver)
    snapshot_id = world.client.post("/sandbox/v1/snapshots").json()["id"]
    stored = rows(world)
    world.create_payout()
    monkeypatch.setattr(store, "_SQL", {**store._SQL, "may_skip_keys": "SELECT false"})

    async def empty_and_restore_twice() -> None:
        async with pooled(world.stack.database_url, 1):
            for _ in range(2):
                async with transaction(world.merchant_id, as_database_owner=True) as conn:
                    await claim(conn, load_catalogue(), [ClaimRequest(world.merchant_id)])
                    await store.empty_world(conn, world.merchant_id)
                async with transaction(world.merchant_id, as_database_owner=True) as conn:
                    await claim(conn, load_catalogue(), [ClaimRequest(world.merchant_id)])
                    assert await store.restore_world(conn, world.merchant_id, snapshot_id) is not None

    asyncio.run(empty_and_restore_twice())
    found = rows(world)
    # Ignore the tables of the aggregator: it may have polled the feed since the snapshot.
    assert {table: found[table] for table in found if "vendor" not in table} == {
        table: stored[table] for table in stored if "vendor" not in table
    }
    world.assert_clean()


def test_after_each_restore_the_same_calls_give_the_same_events_if_seeded_and_frozen(stack: Stack, receiver: Receiver) -> None:
    with World.create(stack, opening_balance="5000.00", seed=9, webhook_url=receiver.url) as world:
        world.client.post("/sandbox/v1/clock/freeze", json={"at": AT})
        world.post("/api/v1/payouts", world.payout_body(merchant_reference="before"), "k1")
        snapshot = world.client.post("/sandbox/v1/snapshots").json()
        assert snapshot["name"] == "snapshot"
        bodies = []
        for _ in range(2):
            assert world.client.post(f"/sandbox/v1/snapshots/{snapshot['id']}/restore").status_code == 200
            body = world.payout_body("0003", merchant_reference="after")
            world.post("/api/v1/payouts", body, "k2", headers={"X-Request-Id": "r"})
            world.client.post("/sandbox/v1/clock/advance", json={"seconds": 1000})
            bodies.append(world.get("/api/v1/events", limit=100).content)
        assert bodies[0] == bodies[1]


def test_a_restore_brings_back_the_offset_of_a_running_clock(world: World) -> None:
    world.client.post("/sandbox/v1/clock/advance", json={"seconds": 5000})
    offset = world.get("/sandbox/v1/clock").json()["offset_seconds"]
    snapshot = world.client.post("/sandbox/v1/snapshots").json()
    world.client.post("/sandbox/v1/clock/freeze")
    world.client.post(f"/sandbox/v1/snapshots/{snapshot['id']}/restore")
    clock = world.get("/sandbox/v1/clock").json()
    assert (clock["frozen"], clock["offset_seconds"]) == (False, offset)


def test_a_webhook_in_flight_at_a_snapshot_is_delivered_after_a_reset_and_a_restore(world: World, receiver: Receiver) -> None:
    """The reset deletes deliveries whose calls are in flight, and their results are not recorded."""
    gate = threading.Event()

    def hold(_: object) -> tuple[int, dict[str, str], bytes]:
        gate.wait(20)
        return 200, {}, b""

    receiver.respond = hold
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url})
    payout = world.create_payout()
    leased = "SELECT id FROM webhook_deliveries WHERE merchant_id = $1 AND leased_until IS NOT NULL"
    until(lambda: world.stack.execute(leased, world.merchant_id))
    snapshot = world.client.post("/sandbox/v1/snapshots").json()
    assert world.client.post("/sandbox/v1/reset").status_code == 200
    world.assert_clean()
    assert world.client.post(f"/sandbox/v1/snapshots/{snapshot['id']}/restore").status_code == 200
    gate.set()
    receiver.wait_for("payout.succeeded", payout_id=payout["id"])
    until(lambda: not world.get("/api/v1/webhook-deliveries", status="PENDING").json()["data"])
    world.assert_clean()


def test_a_merchant_has_a_bounded_number_of_snapshots(world: World) -> None:
    created = [world.client.post("/sandbox/v1/snapshots", json={"name": f"n{n}"}).json() for n in range(service.MAX_SNAPSHOTS)]
    refused = world.client.post("/sandbox/v1/snapshots")
    assert (refused.status_code, refused.json()["code"]) == (409, "INVALID_STATE")
    listed = world.get("/sandbox/v1/snapshots", limit=100).json()["data"]
    assert listed == created[::-1]
    assert world.client.delete(f"/sandbox/v1/snapshots/{created[0]['id']}").status_code == 204
    assert world.get(f"/sandbox/v1/snapshots/{created[0]['id']}").status_code == 404
    assert world.client.post("/sandbox/v1/snapshots").status_code == 201
    first = world.get("/sandbox/v1/snapshots", limit=3).json()
    second = world.get("/sandbox/v1/snapshots", limit=3, cursor=first["next_cursor"]).json()
    assert [item["id"] for item in second["data"]] == [item["id"] for item in listed[2:5]]


def test_a_snapshot_of_too_many_rows_is_refused(world: World) -> None:
    world.stack.execute(
        "INSERT INTO idempotency_keys (merchant_id, key, fingerprint, status, body, expires_at) "
        "SELECT $1, 'k' || i, '\\x00', 200, '', '2040-01-01' FROM generate_series(1, $2::int) i",
        world.merchant_id,
        MAX_SNAPSHOT_ROWS,
    )
    refused = world.client.post("/sandbox/v1/snapshots")
    assert (refused.status_code, refused.json()["code"]) == (409, "INVALID_STATE")
    assert world.get("/sandbox/v1/snapshots").json()["data"] == []
    assert world.client.post("/sandbox/v1/reset").status_code == 200


def test_a_deleted_merchant_leaves_no_row_in_any_table(stack: Stack, receiver: Receiver) -> None:
    with World.create(stack, opening_balance="1000000.00") as world:
        fill(world, receiver)
        assert world.client.post("/sandbox/v1/snapshots").status_code == 201
        count = {table: f"SELECT count(*) AS n FROM {table} WHERE merchant_id = $1" for table in TABLES}
        before = {table for table in TABLES if world.stack.execute(count[table], world.merchant_id)[0]["n"]}
        assert {"events", "transfers", "webhook_attempts", "user_transactions", "bulk_credit_items", "snapshots"} <= before
        path = f"/sandbox/v1/merchants/{world.merchant_id}"
        assert world.client.delete(path, headers={"X-ADMIN-KEY": stack.admin_key}).status_code == 204
        assert {table: world.stack.execute(count[table], world.merchant_id)[0]["n"] for table in TABLES} == dict.fromkeys(
            TABLES, 0
        )
