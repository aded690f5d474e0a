"""A frozen world with a seed repeats: the same script gives the same answers, and the same webhooks in the same order.

Signatures repeat too where the endpoint asks for the merchant's time.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.harness.receiver import Received, Receiver
from tests.harness.waiting import until
from tests.harness.world import Stack, World

AT = "2031-01-01T00:00:00.000Z"
SUFFIXES = ("0001", "0002", "0003", "0004", "0005", "0011", "0012", "0013")
Webhook = tuple[str | bytes, ...]
WORLDS = 10
"""Seven of twenty-five such worlds once differed, where deliveries went side by side."""
EVENTS = 27


class Script:
    """Calls that follow each other, each answer kept as it came."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.bodies: list[tuple[int, bytes]] = []

    def call(self, method: str, path: str, body: Any = None) -> Any:
        number = f"call-{len(self.bodies)}"
        headers = {"X-Request-Id": number, "X-IDEMPOTENCY-KEY": number}
        answer = self.world.client.request(method, path, json=body, headers=headers)
        self.bodies.append((answer.status_code, answer.content))
        return answer.json()


def play(stack: Stack, receiver: Receiver, seed: int) -> tuple[list[tuple[int, bytes]], list[Webhook]]:
    """Run the script in a new world; returns all answers, and all webhooks in the order of their endpoints."""
    receiver.received.clear()
    with World.create(stack, opening_balance="1000000.00", seed=seed) as world:
        frozen = world.client.post("/sandbox/v1/clock/freeze", json={"at": AT})
        assert frozen.json()["now"] == AT
        script = Script(world)
        url, signing = receiver.url, {"signing_time": "merchant"}
        script.call("POST", "/api/v1/webhook-endpoints", {"url": url + "?first", **signing})
        script.call("POST", "/api/v1/webhook-endpoints", {"url": url, "event_types": ["payout.returned"], **signing})
        made = [
            script.call(
                "POST", "/api/v1/payouts", world.payout_body(suffix, merchant_reference=f"ref-{suffix}", amount="250.50")
            )["id"]
            for suffix in SUFFIXES
        ]
        script.call("POST", f"/api/v1/payouts/{made[3]}/cancel")
        script.call("POST", f"/api/v1/payouts/{made[2]}/reinitiate")
        script.call("POST", "/sandbox/v1/balance/top-up", {"amount": "12.00"})
        script.call("POST", f"/sandbox/v1/payouts/{made[4]}/simulate", {"status": "PROCESSING"})
        script.call("POST", f"/sandbox/v1/payouts/{made[0]}/simulate", {"status": "FAILED"})
        batch = [world.payout_body("0012", merchant_reference=f"batch-{n}") for n in range(5)]
        script.call("POST", "/api/v1/payouts/batch", {"payouts": batch})
        script.call("POST", "/sandbox/v1/clock/advance", {"seconds": 100})
        script.call("POST", "/api/v1/payouts", world.payout_body("0001", merchant_reference="last", amount="1.00"))
        script.call("POST", "/sandbox/v1/clock/advance", {"to": "2031-01-02T00:00:00Z"})
        for payout_id in made:
            script.call("GET", f"/api/v1/payouts/{payout_id}")
            script.call("GET", f"/api/v1/payouts/{payout_id}/timeline")
        script.call("GET", "/api/v1/events?limit=100")
        script.call("GET", "/api/v1/balance")
        script.call("GET", "/api/v1/balance/history?limit=100&created_from=2031-01-01T00:00:00Z")
        until(lambda: not world.get("/api/v1/webhook-deliveries", status="PENDING").json()["data"])
        script.call("GET", "/api/v1/webhook-deliveries?limit=100")
        world.assert_clean()
    # Each endpoint has its own order; which of two gets an event first is chance.
    in_order = sorted(receiver.received, key=lambda received: received.path)
    names = ("webhook-timestamp", "webhook-signature", "x-sandbox-now")
    return script.bodies, [(*(received.headers[name] for name in names), received.body) for received in in_order]


def order_of(stack: Stack, receivers: Sequence[Receiver], number: int) -> list[list[tuple[str, str, bytes]]]:
    """Webhooks as each of the receivers got them, in a seeded frozen world that has some to get."""
    for receiver in receivers:
        receiver.received.clear()
    with World.create(stack, opening_balance="1000000.00", seed=77) as world:
        assert world.client.post("/sandbox/v1/clock/freeze", json={"at": AT}).status_code == 200
        script = Script(world)
        for receiver in receivers:
            script.call("POST", "/api/v1/webhook-endpoints", {"url": receiver.url})
        for suffix in ("0001", "0003", "0012", "0002"):
            body = world.payout_body(suffix, merchant_reference=f"one-{suffix}")
            payout = script.call("POST", "/api/v1/payouts", body)
        batch = [world.payout_body("0001", merchant_reference=f"batch-{n}") for n in range(4)]
        script.call("POST", "/api/v1/payouts/batch", {"payouts": batch})
        # By the workers' hands alone, or by the clock's among the workers'.
        if number % 2:
            script.call("POST", "/sandbox/v1/drain")
        until(lambda: not world.get("/api/v1/webhook-deliveries", status="PENDING", limit=1).json()["data"])
        script.call("POST", "/sandbox/v1/clock/advance", {"seconds": 120})
        assert world.payout(payout["id"])["status"] == "SUCCESS"
        until(lambda: not world.get("/api/v1/webhook-deliveries", status="PENDING", limit=1).json()["data"])
    return [
        [(got.headers["webhook-id"], got.headers["x-sandbox-now"], got.body) for got in receiver.received]
        for receiver in receivers
    ]


def test_an_endpoint_of_a_frozen_world_gets_its_events_one_at_a_time_and_in_order(stack: Stack) -> None:
    """In many worlds of one seed, by way of two workers and of the clock: always the same, and never two at once."""
    under_way, most = [0, 0], [0, 0]

    def counting(place: int) -> Callable[[Received], tuple[int, dict[str, str], bytes]]:
        def answer(_: Received) -> tuple[int, dict[str, str], bytes]:
            # Only one thread at a time is here if there is only one delivery at a time.
            under_way[place] += 1
            most[place] = max(most[place], under_way[place])
            time.sleep(0.001)
            under_way[place] -= 1
            return 200, {}, b""

        return answer

    with Receiver() as one, Receiver() as other:
        one.respond, other.respond = counting(0), counting(1)
        orders = [order_of(stack, (one, other), number) for number in range(WORLDS)]
    first = orders[0]
    assert [len(webhooks) for webhooks in first] == [EVENTS, EVENTS]
    assert most == [1, 1]
    ids = [webhook[0] for webhook in first[0]]
    assert ids == sorted(ids)
    assert [number for number, order in enumerate(orders) if order != first] == []


def test_what_failed_comes_again_in_the_order_in_which_it_falls_due(stack: Stack, receiver: Receiver) -> None:
    """A retry waits for its time and holds nothing back; those that are due at one time come in the order of their events."""
    orders = []
    for _ in range(3):
        receiver.received.clear()
        receiver.respond = lambda _: (500 if len(receiver.received) < 3 else 200, {}, b"")
        with World.create(stack, opening_balance="1000000.00", seed=78) as world:
            world.client.post("/sandbox/v1/clock/freeze", json={"at": AT})
            wanted = {"url": receiver.url, "event_types": ["payout.created"]}
            world.post("/api/v1/webhook-endpoints", wanted, key="endpoint", headers={"X-Request-Id": "endpoint"})
            batch = [world.payout_body("0004", merchant_reference=f"batch-{n}") for n in range(6)]
            world.post("/api/v1/payouts/batch", {"payouts": batch}, key="batch", headers={"X-Request-Id": "batch"})
            assert world.client.post("/sandbox/v1/drain").json()["drained"]
            assert len(receiver.received) == 6
            assert world.client.post("/sandbox/v1/clock/advance", json={"seconds": 5}).json()["complete"]
        orders.append([(got.headers["webhook-id"], got.headers["x-sandbox-now"]) for got in receiver.received])
    first = [webhook_id for webhook_id, _ in orders[0]]
    assert first[:6] == sorted(first[:6])
    assert sorted(first[6:]) == first[:3]
    times = [now for _, now in orders[0]]
    assert times == sorted(times)
    assert orders[1:] == orders[:1] * 2


def test_two_worlds_of_one_seed_are_the_same(stack: Stack, receiver: Receiver) -> None:
    answers, webhooks = play(stack, receiver, 42)
    again, webhooks_again = play(stack, receiver, 42)
    for number, (one, other) in enumerate(zip(answers, again, strict=True)):
        assert one == other, f"call {number}"
    assert {status for status, _ in answers} == {200, 201, 409}
    assert len(webhooks) > 30
    assert webhooks == webhooks_again


def test_what_merchants_of_one_seed_are_made_with_has_the_same_ids(stack: Stack, receiver: Receiver) -> None:
    def ids(world: World) -> dict[str, list[str]]:
        return {
            path: [item["id"] for item in world.get(path).json()["data"]]
            for path in ("/api/v1/balance/history", "/api/v1/webhook-endpoints")
        }

    def live() -> tuple[str, Any, Any]:
        with World.create(stack, opening_balance="1000.00", seed=3, webhook_url=receiver.url) as world:
            born = ids(world)
            world.client.post("/sandbox/v1/clock/freeze", json={"at": AT})
            headers = {"X-Request-Id": "r"}
            world.post("/api/v1/payouts", world.payout_body("0011", merchant_reference="ref"), "k", headers=headers)
            ran = world.client.post("/sandbox/v1/clock/advance", json={"seconds": 1000}).json()["ran"]
            lived = ids(world)
            assert [lived[path][-1:] for path in born] == list(born.values())
            assert world.client.post("/sandbox/v1/reset").status_code == 200
            assert ids(world) == born
            return world.merchant_id, lived, ran

    (one, *first), (other, *second) = live(), live()
    assert first == second
    assert "delivery_attempt" in {entry["kind"] for entry in first[1]}
    assert one != other


def test_another_seed_is_another_world(stack: Stack, receiver: Receiver) -> None:
    answers, webhooks = play(stack, receiver, 1)
    others, webhooks_of_others = play(stack, receiver, 2)
    assert [status for status, _ in answers] == [status for status, _ in others]
    assert answers != others
    assert not {*webhooks} & {*webhooks_of_others}
