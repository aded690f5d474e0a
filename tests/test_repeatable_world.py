"""Seeded, frozen merchants are reproducible: the same script gives the same responses, and the same webhooks in order.

Signatures are the same too if the endpoint signs with the merchant's time.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.harness.receiver import Received, Receiver
from tests.harness.waiting import until
from tests.harness.world import Stack, World

FROZEN_AT = "2031-01-01T00:00:00.000Z"
SUFFIXES = ("0001", "0002", "0003", "0004", "0005", "0011", "0012", "0013")
Webhook = tuple[str | bytes, ...]
MERCHANT_COUNT = 10
"""Enough to notice parallel deliveries: they once changed the order in seven of twenty-five runs."""
EVENT_COUNT = 27


class Script:
    """Sends requests one after the other and records each response."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.responses: list[tuple[int, bytes]] = []

    def call(self, method: str, path: str, body: Any = None) -> Any:
        call_id = f"call-{len(self.responses)}"
        headers = {"X-Request-Id": call_id, "X-IDEMPOTENCY-KEY": call_id}
        response = self.world.client.request(method, path, json=body, headers=headers)
        self.responses.append((response.status_code, response.content))
        return response.json()


def run_script(stack: Stack, receiver: Receiver, seed: int) -> tuple[list[tuple[int, bytes]], list[Webhook]]:
    """Run the script for a new merchant. Return all responses, and all webhooks, endpoint by endpoint."""
    receiver.received.clear()
    with World.create(stack, opening_balance="1000000.00", seed=seed) as world:
        frozen = world.client.post("/sandbox/v1/clock/freeze", json={"at": FROZEN_AT})
        assert frozen.json()["now"] == FROZEN_AT
        script = Script(world)
        url, signing = receiver.url, {"signing_time": "merchant"}
        script.call("POST", "/api/v1/webhook-endpoints", {"url": url + "?first", **signing})
        script.call("POST", "/api/v1/webhook-endpoints", {"url": url, "event_types": ["payout.returned"], **signing})
        payout_ids = [
            script.call(
                "POST", "/api/v1/payouts", world.payout_body(suffix, merchant_reference=f"ref-{suffix}", amount="250.50")
            )["id"]
            for suffix in SUFFIXES
        ]
        script.call("POST", f"/api/v1/payouts/{payout_ids[3]}/cancel")
        script.call("POST", f"/api/v1/payouts/{payout_ids[2]}/reinitiate")
        script.call("POST", "/sandbox/v1/balance/top-up", {"amount": "12.00"})
        script.call("POST", f"/sandbox/v1/payouts/{payout_ids[4]}/simulate", {"status": "PROCESSING"})
        script.call("POST", f"/sandbox/v1/payouts/{payout_ids[0]}/simulate", {"status": "FAILED"})
        batch = [world.payout_body("0012", merchant_reference=f"batch-{n}") for n in range(5)]
        script.call("POST", "/api/v1/payouts/batch", {"payouts": batch})
        script.call("POST", "/sandbox/v1/clock/advance", {"seconds": 100})
        script.call("POST", "/api/v1/payouts", world.payout_body("0001", merchant_reference="last", amount="1.00"))
        script.call("POST", "/sandbox/v1/clock/advance", {"to": "2031-01-02T00:00:00Z"})
        for payout_id in payout_ids:
            script.call("GET", f"/api/v1/payouts/{payout_id}")
            script.call("GET", f"/api/v1/payouts/{payout_id}/timeline")
        script.call("GET", "/api/v1/events?limit=100")
        script.call("GET", "/api/v1/balance")
        script.call("GET", "/api/v1/balance/history?limit=100&created_from=2031-01-01T00:00:00Z")
        until(lambda: not world.get("/api/v1/webhook-deliveries", status="PENDING").json()["data"])
        script.call("GET", "/api/v1/webhook-deliveries?limit=100")
        world.assert_clean()
    # Only the order per endpoint is fixed: either of two endpoints can get an event first.
    in_order = sorted(receiver.received, key=lambda received: received.path)
    names = ("webhook-timestamp", "webhook-signature", "x-sandbox-now", "traceparent")
    return script.responses, [(*(received.headers[name] for name in names), received.body) for received in in_order]


def delivery_orders(stack: Stack, receivers: Sequence[Receiver], number: int) -> list[list[tuple[str, str, bytes]]]:
    """Run payouts for a new seeded, frozen merchant and return the webhooks in the order in which each receiver got them."""
    for receiver in receivers:
        receiver.received.clear()
    with World.create(stack, opening_balance="1000000.00", seed=77) as world:
        assert world.client.post("/sandbox/v1/clock/freeze", json={"at": FROZEN_AT}).status_code == 200
        script = Script(world)
        for receiver in receivers:
            script.call("POST", "/api/v1/webhook-endpoints", {"url": receiver.url})
        for suffix in ("0001", "0003", "0012", "0002"):
            body = world.payout_body(suffix, merchant_reference=f"one-{suffix}")
            payout = script.call("POST", "/api/v1/payouts", body)
        batch = [world.payout_body("0001", merchant_reference=f"batch-{n}") for n in range(4)]
        script.call("POST", "/api/v1/payouts/batch", {"payouts": batch})
        # Either the workers alone make the deliveries, or the workers and a drain together.
        if number % 2:
            script.call("POST", "/sandbox/v1/drain")
        until(lambda: not world.get("/api/v1/webhook-deliveries", status="PENDING", limit=1).json()["data"])
        script.call("POST", "/sandbox/v1/clock/advance", {"seconds": 120})
        assert world.payout(payout["id"])["status"] == "SUCCESS"
        until(lambda: not world.get("/api/v1/webhook-deliveries", status="PENDING", limit=1).json()["data"])
    return [
        [(request.headers["webhook-id"], request.headers["x-sandbox-now"], request.body) for request in receiver.received]
        for receiver in receivers
    ]


def test_an_endpoint_of_a_frozen_merchant_gets_its_events_one_at_a_time_and_in_order(stack: Stack) -> None:
    """Many merchants with one seed get the same order from two workers and the clock, and never two deliveries together."""
    running, max_running = [0, 0], [0, 0]

    def count_concurrent(index: int) -> Callable[[Received], tuple[int, dict[str, str], bytes]]:
        def respond(_: Received) -> tuple[int, dict[str, str], bytes]:
            # One thread at a time runs this if there is one delivery at a time.
            running[index] += 1
            max_running[index] = max(max_running[index], running[index])
            time.sleep(0.001)
            running[index] -= 1
            return 200, {}, b""

        return respond

    with Receiver() as one, Receiver() as other:
        one.respond, other.respond = count_concurrent(0), count_concurrent(1)
        orders = [delivery_orders(stack, (one, other), number) for number in range(MERCHANT_COUNT)]
    first = orders[0]
    assert [len(webhooks) for webhooks in first] == [EVENT_COUNT, EVENT_COUNT]
    assert max_running == [1, 1]
    ids = [webhook[0] for webhook in first[0]]
    assert ids == sorted(ids)
    assert [number for number, order in enumerate(orders) if order != first] == []


def test_failed_deliveries_are_retried_in_order_of_their_due_times(stack: Stack, receiver: Receiver) -> None:
    """A retry does not hold back other deliveries. Retries that are due at the same time follow the order of their events."""
    orders = []
    for _ in range(3):
        receiver.received.clear()
        receiver.respond = lambda _: (500 if len(receiver.received) < 3 else 200, {}, b"")
        with World.create(stack, opening_balance="1000000.00", seed=78) as world:
            world.client.post("/sandbox/v1/clock/freeze", json={"at": FROZEN_AT})
            endpoint = {"url": receiver.url, "event_types": ["payout.created"]}
            world.post("/api/v1/webhook-endpoints", endpoint, key="endpoint", headers={"X-Request-Id": "endpoint"})
            batch = [world.payout_body("0004", merchant_reference=f"batch-{n}") for n in range(6)]
            world.post("/api/v1/payouts/batch", {"payouts": batch}, key="batch", headers={"X-Request-Id": "batch"})
            assert world.client.post("/sandbox/v1/drain").json()["drained"]
            assert len(receiver.received) == 6
            assert world.client.post("/sandbox/v1/clock/advance", json={"seconds": 5}).json()["complete"]
        orders.append([(request.headers["webhook-id"], request.headers["x-sandbox-now"]) for request in receiver.received])
    first = [webhook_id for webhook_id, _ in orders[0]]
    assert first[:6] == sorted(first[:6])
    assert sorted(first[6:]) == first[:3]
    times = [now for _, now in orders[0]]
    assert times == sorted(times)
    assert orders[1:] == orders[:1] * 2


def test_two_merchants_with_one_seed_are_the_same(stack: Stack, receiver: Receiver) -> None:
    responses, webhooks = run_script(stack, receiver, 42)
    responses_again, webhooks_again = run_script(stack, receiver, 42)
    for number, (one, other) in enumerate(zip(responses, responses_again, strict=True)):
        assert one == other, f"call {number} must have the same response"
    assert {status for status, _ in responses} == {200, 201, 409}
    assert len(webhooks) > 30
    assert webhooks == webhooks_again


def test_merchants_with_one_seed_have_the_same_ids_from_creation_on(stack: Stack, receiver: Receiver) -> None:
    def ids(world: World) -> dict[str, list[str]]:
        return {
            path: [item["id"] for item in world.get(path).json()["data"]]
            for path in ("/api/v1/balance/history", "/api/v1/webhook-endpoints")
        }

    def run_merchant() -> tuple[str, Any, Any]:
        with World.create(stack, opening_balance="1000.00", seed=3, webhook_url=receiver.url) as world:
            initial = ids(world)
            world.client.post("/sandbox/v1/clock/freeze", json={"at": FROZEN_AT})
            headers = {"X-Request-Id": "r"}
            world.post("/api/v1/payouts", world.payout_body("0011", merchant_reference="ref"), "k", headers=headers)
            entries = world.client.post("/sandbox/v1/clock/advance", json={"seconds": 1000}).json()["ran"]
            final = ids(world)
            assert [final[path][-1:] for path in initial] == list(initial.values())
            assert world.client.post("/sandbox/v1/reset").status_code == 200
            assert ids(world) == initial
            return world.merchant_id, final, entries

    (one, *first), (other, *second) = run_merchant(), run_merchant()
    assert first == second
    assert "delivery_attempt" in {entry["kind"] for entry in first[1]}
    assert one != other


def test_another_seed_gives_other_ids(stack: Stack, receiver: Receiver) -> None:
    responses, webhooks = run_script(stack, receiver, 1)
    others, webhooks_of_others = run_script(stack, receiver, 2)
    assert [status for status, _ in responses] == [status for status, _ in others]
    assert responses != others
    assert not {*webhooks} & {*webhooks_of_others}
