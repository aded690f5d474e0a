"""What the sandbox does with a merchant's world, it does with payouts and endpoints of a dialect too."""

import pytest

from tests.harness.citus import NODES, CitusCluster
from tests.harness.console import ConsoleClient
from tests.harness.receiver import Receiver
from tests.harness.safepay import Safepay, payout_body
from tests.harness.waiting import until
from tests.harness.world import Stack, World
from tests.test_dialect_safepay_webhooks import subscribe, verify
from tests.test_world_bundles import exported, import_into


def settled_with_its_webhook(safepay: Safepay, receiver: Receiver, secret: str) -> None:
    """Pay, and see that the endpoint gets a signed event of this payment in the dialect's format."""
    token = safepay.payout("0001")["token"]
    safepay.until(token, "P_SETTLED")
    found = until(lambda: [one for one in receiver.received if token.encode() in one.body and b"payment.settled" in one.body])
    assert verify(secret, found[0])["code"] == "PAYMENT_SETTLED"


def test_a_restored_snapshot_has_the_payments_and_the_endpoint_of_then(world: World, receiver: Receiver) -> None:
    safepay, token, secret = subscribe(world, receiver, sandbox_event_amount="rupees")
    body = payout_body("0004")
    made, endpoint = safepay.post("/payout", body), safepay.get(f"/webhooks/{token}")
    taken = world.client.post("/sandbox/v1/snapshots", json={"name": "then"}).json()["id"]
    safepay.payout("0004")
    safepay.put(f"/webhooks/{token}", {"event_types": ["refund.*"], "sandbox_event_amount": "paisa"})
    assert world.client.post(f"/sandbox/v1/snapshots/{taken}/restore").status_code == 200
    assert safepay.get("/payments")["count"] == "1"
    assert safepay.post("/payout", body) == made
    assert safepay.get(f"/webhooks/{token}") == endpoint
    settled_with_its_webhook(safepay, receiver, secret)
    assert receiver.received[-1].event["subject"]["payment"]["amount"] == "200"
    world.assert_clean()


def test_an_imported_world_has_the_payments_under_its_own_aggregator(stack: Stack, world: World, receiver: Receiver) -> None:
    safepay, _, _ = subscribe(world, receiver)
    body = payout_body("0001")
    token = safepay.post("/payout", body)["token"]
    before = safepay.until(token, "P_SETTLED")
    until(lambda: receiver.received)
    world.post("/sandbox/v1/drain")
    with World.create(stack) as other:
        import_into(other, exported(world))
        imported = Safepay(other)
        found = imported.get("/payments", request_id=body["request_id"])["payments"][0]
        assert (found["aggregator_id"], found["status"]) == (f"agg_{other.merchant_id}", "P_SETTLED")
        assert [log["status"] for log in found["txn_logs"]] == [log["status"] for log in before["txn_logs"]]
        assert imported.get("/payments", uetr=found["uetr"])["count"] == "1"
        assert imported.call("POST", "/payout", json=body | {"amount": "201"}).status_code == 409
        assert imported.get("/webhooks")["count"] == "1"
        other.assert_clean()


def test_a_dead_delivery_is_explained(world: World, receiver: Receiver) -> None:
    receiver.respond = lambda _: (422, {}, b"")
    safepay, token, _ = subscribe(world, receiver, "payment.created")
    safepay.payout("0004")
    (delivery,) = until(lambda: safepay.get(f"/webhooks/{token}/deliveries", status="WD_DEAD")["deliveries"])
    path = f"/api/v1/webhook-deliveries/{delivery['token'].removeprefix('whd_')}/explain"
    found = until(lambda: found if (found := world.get(path).json())["request"]["method"] else None)
    assert (found["request"]["method"], found["request"]["path"]) == ("POST", f"{safepay.base}/payout")
    assert [attempt["status"] for attempt in found["attempts"]] == [422]


def test_the_console_shows_a_payout_as_the_dialect_does_beside_the_native_one(world: World, stack: Stack) -> None:
    safepay = Safepay(world)
    made = safepay.payout("0004", "12.50")
    payout_id = made["token"].removeprefix("pm_")
    with ConsoleClient(stack.api_url) as console:
        console.sign_in(world.api_key)
        link = f"{console.home}/payouts/{payout_id}/as/safepay"
        assert link in console.get(f"{console.home}/payouts/{payout_id}").text
        page = console.get(link)
        assert page.status_code == 200
        for text in (made["uetr"], made["token"], "P_INITIATED", "12.50", "in paisa in webhooks", "PENDING"):
            assert text in page.text
        assert console.get(f"{console.home}/payouts/{payout_id}/as/none").status_code == 404
        assert console.act("safepay_get_payment", path__aggregator_id="x", path__payment_id="y").status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize("entry", NODES)
def test_on_a_citus_cluster_each_node_serves_the_dialect(citus: CitusCluster, entry: str, receiver: Receiver) -> None:
    with World.create(citus.sandbox(entry), opening_balance="1000.00") as world:
        safepay, token, secret = subscribe(world, receiver)
        settled_with_its_webhook(safepay, receiver, secret)
        body = payout_body(amount="999999")
        assert safepay.post("/payout", body)["status"] == "P_FAILED"
        assert safepay.call("POST", "/payout", json=body | {"amount": "1"}).status_code == 409
        assert safepay.get("/payments", limit=1, offset=1)["count"] == "2"
        assert safepay.get(f"/webhooks/{token}/deliveries", type="payment.settled")["count"] == "1"
        key = safepay.post("/keys", {"is_active": True, "name": "second"})
        assert Safepay(world, key=key["secret"]).get("/ledger/accounts")["balance"] == "80000"
        world.assert_clean()
