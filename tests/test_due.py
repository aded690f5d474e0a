"""The list of what happens next names exactly what the clock will run, soonest first."""

from typing import Any

from tests.harness.command import invoke
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World


def due(world: World, **params: Any) -> dict[str, Any]:
    """Return the list of what happens next."""
    found: dict[str, Any] = world.get("/sandbox/v1/clock/due", **params).json()
    return found


def freeze(world: World) -> None:
    assert world.client.post("/sandbox/v1/clock/freeze", json={}).status_code == 200


def advance(world: World, **body: Any) -> dict[str, Any]:
    response = world.client.post("/sandbox/v1/clock/advance", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_advancing_to_the_first_item_runs_exactly_what_was_listed_for_that_time(world: World) -> None:
    """Instant by instant, the list predicts each change of payouts with retries, delays, failures and returns."""
    freeze(world)
    for suffix in ("0011", "0012", "0013", "0014"):
        world.create_payout(suffix)
    outcomes = []
    while (listed := due(world)["data"]) != []:
        at = listed[0]["due_at"]
        expected = {item["payout_id"]: (item["to"], item["failure_code"]) for item in listed if item["due_at"] == at}
        ran = advance(world, to=at)["ran"]
        assert {step["at"] for step in ran} == {at}
        assert {step["payout_id"]: step["to"] for step in ran} == {id_: to for id_, (to, _) in expected.items()}
        for payout_id, (to, failure_code) in expected.items():
            payout = world.payout(payout_id)
            assert (payout["status"], payout["failure_code"]) == (to, failure_code)
            outcomes.append(failure_code or to)
    assert outcomes == ["RETRY", "RETRY", "BANK_UNAVAILABLE", "SUCCESS", "TIMEOUT", "RETURNED_BY_BANK"]
    world.assert_clean()


def test_the_items_are_in_the_order_in_which_they_fall_due_and_limited(world: World) -> None:
    freeze(world)
    returned, slow = world.create_payout("0012")["id"], world.create_payout("0014")["id"]
    listed = due(world)
    assert [(item["kind"], item["payout_id"], item["description"]) for item in listed["data"]] == [
        ("payout_step", slow, "PROCESSING → FAILED (TIMEOUT)"),
        ("payout_step", returned, "SUCCESS → RETURNED (RETURNED_BY_BANK)"),
    ]
    assert (listed["has_more"], listed["next_cursor"]) == (False, None)
    shortened = due(world, limit=1)
    assert (shortened["data"], shortened["has_more"]) == (listed["data"][:1], True)


def test_a_payout_that_waits_for_a_decision_is_listed_only_if_the_wait_ends_by_itself(world: World) -> None:
    freeze(world)
    for suffix in ("0004", "0005"):
        world.create_payout(suffix)
    world.create_payout(requires_approval=True)
    world.create_payout(amount="100000.00")
    assert due(world)["data"] == []
    world.client.patch("/sandbox/v1/settings", json={"approvals_expire_after": 60})
    requested = world.create_payout(requires_approval=True)["id"]
    reviewed = world.create_payout(amount="100000.00")["id"]
    assert {(item["payout_id"], item["description"]) for item in due(world)["data"]} == {
        (requested, "REQUESTED → REJECTED (APPROVAL_EXPIRED)"),
        (reviewed, "IN_REVIEW → FAILED (APPROVAL_EXPIRED)"),
    }


def test_a_failing_delivery_is_listed_with_its_next_attempt_until_its_endpoint_is_disabled(
    world: World, receiver: Receiver
) -> None:
    receiver.respond = lambda _: (500, {}, b"")
    body = {"url": receiver.url, "event_types": ["payout.created"], "retry_profile": "fast"}
    endpoint = world.post("/api/v1/webhook-endpoints", body).json()["id"]
    freeze(world)
    payout, other = world.create_payout("0004")["id"], world.create_payout("0014")["id"]
    assert world.client.post("/sandbox/v1/drain").status_code == 200
    (item,) = due(world, payout_id=payout)["data"]
    (delivery,) = [d for d in world.get("/api/v1/webhook-deliveries").json()["data"] if d["id"] == item["delivery_id"]]
    assert item == {
        "kind": "delivery_attempt", "due_at": item["due_at"], "delivery_id": delivery["id"], "event_id": delivery["event_id"],
        "event_type": "payout.created", "payout_id": payout, "endpoint_id": endpoint, "url": receiver.url, "attempt": 2,
        "description": f"Attempt 2 to send payout.created to {receiver.url}",
    }  # fmt: skip
    assert {item.get("payout_id") for item in due(world)["data"]} == {payout, other}
    ran = advance(world, to=item["due_at"])["ran"]
    assert (delivery["id"], 2) in {(attempt["delivery_id"], attempt["attempt"]) for attempt in ran}
    world.patch(f"/api/v1/webhook-endpoints/{endpoint}", {"status": "DISABLED"})
    assert due(world, payout_id=payout)["data"] == []
    assert [item["kind"] for item in due(world)["data"]] == ["payout_step"]


def test_the_list_of_one_payout_has_only_its_own_items(world: World) -> None:
    freeze(world)
    slow = world.create_payout("0013")["id"]
    world.create_payout("0014")
    assert [(item["payout_id"], item["to"]) for item in due(world, payout_id=slow)["data"]] == [(slow, "SUCCESS")]
    assert due(world, payout_id=world.create_payout("0001")["id"])["data"] == []


def test_the_merchants_own_scenarios_are_predicted_until_a_request_ends_them(world: World) -> None:
    steps = [{"to": "PROCESSING"}, {"to": "ON_HOLD", "after": 5}, {"to": "PROCESSING", "after": 5}, {"to": "SUCCESS"}]
    rule = {"name": "own", "match": {"suffix": "7777"}, "steps": steps}
    assert world.client.post("/sandbox/v1/scenarios", json=rule).status_code == 201
    freeze(world)
    payout = world.create_payout("7777")["id"]
    assert [item["description"] for item in due(world)["data"]] == ["PROCESSING → ON_HOLD"]
    advance(world, seconds=5)
    assert [item["description"] for item in due(world)["data"]] == ["ON_HOLD → PROCESSING → SUCCESS"]
    world.post(f"/api/v1/payouts/{payout}/cancel")
    assert due(world)["data"] == []


def test_the_command_prints_one_line_for_each_item(world: World) -> None:
    freeze(world)
    payout = world.create_payout("0014")["id"]
    arguments = ["clock", "due", "--payout", payout, "--url", world.stack.api_url, "--api-key", world.api_key]
    result = invoke(*arguments)
    assert f"payout {payout}: PROCESSING → FAILED (TIMEOUT)" in result.stdout
    advance(world, seconds=30)
    until(lambda: "Nothing is scheduled." in invoke(*arguments).stdout)
