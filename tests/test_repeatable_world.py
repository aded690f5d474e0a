"""A frozen world with a seed repeats, byte for byte: the same script gives the same answers and the same webhooks."""

from typing import Any

from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import Stack, World

AT = "2031-01-01T00:00:00.000Z"
SUFFIXES = ("0001", "0002", "0003", "0004", "0005", "0011", "0012", "0013")
Webhook = tuple[str, str, str, bytes]


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


def play(stack: Stack, receiver: Receiver, seed: int) -> tuple[list[tuple[int, bytes]], set[Webhook]]:
    """Run the script in a new world; returns all answers, and all webhooks."""
    receiver.received.clear()
    with World.create(stack, opening_balance="1000000.00", seed=seed) as world:
        frozen = world.client.post("/sandbox/v1/clock/freeze", json={"at": AT})
        assert frozen.json()["now"] == AT
        script = Script(world)
        script.call("POST", "/api/v1/webhook-endpoints", {"url": receiver.url})
        script.call("POST", "/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.returned"]})
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
    return script.bodies, {
        (
            received.headers["webhook-id"],
            received.headers["webhook-timestamp"],
            received.headers["webhook-signature"],
            received.body,
        )
        for received in receiver.received
    }


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
    assert not webhooks & webhooks_of_others
