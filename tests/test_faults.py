"""Each kind of fault happens exactly as often as configured, and no fault corrupts the ledger."""

import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from sandbox.http.fault import MAX_MS, Fault
from sandbox.http.faults.requests import MAX_FAULTS
from sandbox.webhooks.signing.standard_webhooks import decode_secret, verify
from tests.harness.receiver import Received, Receiver
from tests.harness.waiting import until
from tests.harness.world import Stack, World

FAULTS = "/sandbox/v1/faults"


def create_fault(world: World, target: str, kind: str, **fields: Any) -> dict[str, Any]:
    """Create a fault.

    It takes effect immediately, so tests need not wait. An API fault is known to the process that created it, which also serves
    the client's next requests on the same connection. A webhook fault applies to every delivery that is claimed later.
    """
    response = world.post(FAULTS, {"target": target, "kind": kind, **fields})
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    assert response.headers["location"] == f"{FAULTS}/{created['id']}"
    return created


def hits(world: World, created: dict[str, Any]) -> tuple[int, int | None]:
    """Return the fault's number of hits so far, and how many remain."""
    found = world.get(f"{FAULTS}/{created['id']}").json()
    return found["hits"], found["remaining"]


@pytest.fixture(autouse=True)
def audit_afterwards(world: World) -> Iterator[None]:
    """Delete all faults after each test, then check that the audit passes."""
    yield
    for existing in world.get(FAULTS, limit=100).json()["data"]:
        assert world.client.delete(f"{FAULTS}/{existing['id']}").status_code == 204
    world.assert_clean()


# API faults.


@pytest.mark.parametrize(
    ("status", "code", "retry_after"),
    [
        (400, "VALIDATION_ERROR", None), (402, "INSUFFICIENT_BALANCE", None), (404, "NOT_FOUND", None),
        (410, "NOT_FOUND", None), (418, "UNAVAILABLE", "1"), (429, "RATE_LIMITED", "1"), (500, "INTERNAL_ERROR", None),
        (502, "UNAVAILABLE", "1"), (503, "UNAVAILABLE", "1"), (504, "UNAVAILABLE", "1"),
    ],
)  # fmt: skip
def test_an_injected_error_is_sent_before_the_request_has_any_effect(
    world: World, status: int, code: str, retry_after: str | None
) -> None:
    created = create_fault(world, "api", "error", status=status, count=1)
    body, key = world.payout_body(), str(uuid.uuid4())
    first = world.post("/api/v1/payouts", body, key=key)
    assert (first.status_code, first.json()["code"], first.headers.get("retry-after")) == (status, code, retry_after)
    assert first.headers["content-type"] == "application/problem+json"
    assert ("errors" in first.json()) == (code == "VALIDATION_ERROR")
    # The request had no effect, so its repeat under the same key is not a replay.
    second = world.post("/api/v1/payouts", body, key=key)
    assert (second.status_code, second.headers.get("idempotent-replayed")) == (201, None)
    assert hits(world, created) == (1, 0)


def test_an_injected_rate_limit_has_retry_after(world: World) -> None:
    created = create_fault(world, "api", "rate_limit", retry_after=7.0)
    assert repr(created["parameters"]) == "{'retry_after': 7}"
    response = world.get("/api/v1/balance")
    assert (response.status_code, response.json()["code"], response.headers["retry-after"]) == (429, "RATE_LIMITED", "7")
    assert world.get("/sandbox/v1/scenarios").status_code == 200


@pytest.mark.parametrize("kind", ["latency", "slow_after_commit"])
def test_a_response_can_be_delayed(world: World, kind: str) -> None:
    created = create_fault(world, "api", kind, milliseconds=700, count=1)
    assert world.post("/api/v1/payouts", world.payout_body("0004")).status_code == 201
    assert hits(world, created) == (1, 0)
    filters = {"path": "/api/v1/payouts", "method": "POST"}
    (entry,) = until(lambda: world.client.get("/sandbox/v1/requests", params=filters).json()["data"])
    assert (entry["fault"]["id"], entry["fault"]["kind"]) == (created["id"], kind)
    # This does not depend on the machine's speed, because the measured time includes the fault's delay.
    assert entry["duration_ms"] >= 700
    assert len(world.get("/api/v1/payouts").json()["data"]) == 1


def test_slow_after_commit_commits_before_it_delays_the_response(world: World) -> None:
    create_fault(world, "api", "slow_after_commit", milliseconds=60_000, match={"method": "POST"})
    with pytest.raises(httpx.ReadTimeout):
        world.post("/api/v1/payouts", world.payout_body("0004"), timeout=httpx.Timeout(60, read=2))
    until(lambda: len(world.get("/api/v1/payouts").json()["data"]) == 1)


@pytest.mark.parametrize(
    ("kind", "fields", "error", "has_effect"),
    [
        ("connection_reset", {}, httpx.ReadError, True),
        ("truncated_body", {}, httpx.RemoteProtocolError, True),
        # The body may still be on its way, and then it is its sending that fails.
        ("connection_reset", {"when": "before_effect"}, httpx.TransportError, False),
    ],
)
def test_after_a_lost_or_broken_response_a_repeat_leaves_one_payout(
    world: World, kind: str, fields: dict[str, str], error: type[httpx.TransportError], has_effect: bool
) -> None:
    created = create_fault(world, "api", kind, count=1, match={"method": "POST", "path": "/api/v1/payouts*"}, **fields)
    body, key = world.payout_body("0004"), str(uuid.uuid4())
    with pytest.raises(error):
        world.post("/api/v1/payouts", body, key=key)
    assert len(world.get("/api/v1/payouts").json()["data"]) == has_effect
    again = world.post("/api/v1/payouts", body, key=key)
    assert (again.status_code, again.headers.get("idempotent-replayed")) == (201, "true" if has_effect else None)
    assert [payout["id"] for payout in world.get("/api/v1/payouts").json()["data"]] == [again.json()["id"]]
    assert hits(world, created) == (1, 0)


def test_a_gateway_can_lose_the_answer_of_a_request_that_had_its_effect(world: World) -> None:
    created = create_fault(world, "api", "error", status=502, when="after_effect", count=1, match={"method": "POST"})
    assert created["parameters"] == {"status": 502, "when": "after_effect"}
    body, key = world.payout_body("0004"), str(uuid.uuid4())
    lost = world.post("/api/v1/payouts", body, key=key)
    assert (lost.status_code, lost.headers["content-type"]) == (502, "text/html")
    assert "<h1>502</h1>" in lost.text
    assert lost.headers["x-request-id"]
    assert not {"location", "idempotent-replayed"} & {*lost.headers}
    again = world.post("/api/v1/payouts", body, key=key)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert hits(world, created) == (1, 0)


def test_the_first_matches_can_be_spared(world: World) -> None:
    created = create_fault(world, "api", "error", status=500, skip=2, count=1)
    assert created["skip"] == 2
    assert [world.get("/api/v1/balance").status_code for _ in range(4)] == [200, 200, 500, 200]
    assert hits(world, created) == (1, 0)


def test_a_fault_can_hit_the_calls_of_one_key_only(world: World) -> None:
    other = world.post("/sandbox/v1/keys", {"role": "member"}).json()
    create_fault(world, "api", "error", status=500, match={"api_key_id": other["id"]})
    assert world.get("/api/v1/balance").status_code == 200
    assert world.client.get("/api/v1/balance", headers={"X-API-KEY": other["api_key"]}).status_code == 500
    refused = world.post(FAULTS, {"target": "webhooks", "kind": "drop", "match": {"api_key_id": other["id"]}})
    assert refused.status_code == 400


def test_only_requests_that_match_method_path_and_reference_are_hit(world: World) -> None:
    create_fault(world, "api", "error", status=500, match={"method": "POST", "path": "/api/v1/pay*", "reference": "bad-*-end"})
    assert world.get("/api/v1/payouts").status_code == 200
    for reference, status in (("bad-1-end", 500), ("a bad--end of it", 500), ("bad-1", 201), ("end bad-", 201)):
        assert world.post("/api/v1/payouts", world.payout_body(merchant_reference=reference)).status_code == status, reference
    batch = [world.payout_body(merchant_reference=reference) for reference in ("good", "bad-2-end")]
    assert world.post("/api/v1/payouts/batch", {"payouts": batch}).status_code == 500


def test_the_count_of_a_fault_holds_across_all_processes(world: World) -> None:
    created = create_fault(world, "api", "error", status=500, count=3)

    def get_balance_status(_: int) -> int:
        # Each request opens a connection, so that both API processes receive some.
        return httpx.get(f"{world.stack.api_url}/api/v1/balance", headers={"X-API-KEY": world.api_key}, timeout=60).status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(get_balance_status, range(64)))
    assert sorted(statuses) == [200] * 61 + [500] * 3
    assert hits(world, created) == (3, 0)


def test_a_fault_ends_when_it_expires_in_the_merchants_time_or_is_deleted(world: World) -> None:
    create_fault(world, "api", "error", status=500, ttl_seconds=3600)
    assert world.get("/api/v1/balance").status_code == 500
    world.shift_clock(3600)
    assert world.get("/api/v1/balance").status_code == 200
    created = create_fault(world, "api", "error", status=500)
    assert world.get("/api/v1/balance").status_code == 500
    assert world.client.delete(f"{FAULTS}/{created['id']}").status_code == 204
    assert world.get("/api/v1/balance").status_code == 200
    assert world.client.delete(f"{FAULTS}/{created['id']}").json()["code"] == "NOT_FOUND"


def test_a_fault_affects_only_its_own_merchant(world: World) -> None:
    created = create_fault(world, "api", "error", status=500)
    with World.create(world.stack) as other:
        assert other.get("/api/v1/balance").status_code == 200
        assert other.get(f"{FAULTS}/{created['id']}").json()["code"] == "NOT_FOUND"


def test_a_merchants_active_faults_are_limited_and_used_up_ones_do_not_count(world: World) -> None:
    world.stack.execute(
        "INSERT INTO faults (merchant_id, id, target, kind, match, parameters, probability, count, matches, hits, created_at) "
        "SELECT $1, gen_random_uuid(), 'webhooks', 'drop', '{}', '{}', 1, 1, 1, (n = 1)::int, now() "
        "FROM generate_series(1, $2::int) n",
        world.merchant_id, MAX_FAULTS,
    )  # fmt: skip
    body = {"target": "webhooks", "kind": "drop"}
    assert world.post(FAULTS, body).status_code == 201
    assert world.post(FAULTS, body).json()["code"] == "INVALID_STATE"


# Webhook faults.


def create_endpoint(world: World, receiver: Receiver, **fields: Any) -> dict[str, Any]:
    """Create a webhook endpoint for the receiver, by default for `payout.created`, and return it."""
    body = {"url": receiver.url, "event_types": ["payout.created"], "retry_profile": "fast", **fields}
    endpoint: dict[str, Any] = world.post("/api/v1/webhook-endpoints", body).json()
    return endpoint


def refusal_reason(received: Received, secret: str) -> str | None:
    """Return why a careful receiver would refuse the delivery, or None if it would accept it."""
    return verify((decode_secret(secret),), received.headers, received.body, int(time.time()))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("stale_timestamp", "in the past"), ("wrong_key", "No signature"), ("tampered_body", "No signature"),
        ("truncated_body", "No signature"),
    ],
)  # fmt: skip
def test_a_receiver_that_verifies_refuses_a_manipulated_delivery(
    world: World, receiver: Receiver, kind: str, reason: str
) -> None:
    secret = create_endpoint(world, receiver)["secret"]
    created = create_fault(world, "webhooks", kind, count=1)
    for _ in range(2):
        before = len(receiver.received)
        world.create_payout("0004")
        until(lambda before=before: len(receiver.received) > before)
    first, second = (refusal_reason(received, secret) for received in receiver.received)
    assert reason in (first or "")
    assert second is None
    if kind == "tampered_body":
        assert json.loads(receiver.received[0].body)["tampered"] is True
    assert hits(world, created) == (1, 0)


def test_a_dropped_delivery_counts_as_failed_and_its_retry_arrives(world: World, receiver: Receiver) -> None:
    secret = create_endpoint(world, receiver)["secret"]
    create_fault(world, "webhooks", "drop", count=1)
    world.create_payout("0004")
    (delivery,) = until(lambda: world.get("/api/v1/webhook-deliveries", status="SUCCEEDED").json()["data"])
    attempts = world.get(f"/api/v1/webhook-deliveries/{delivery['id']}").json()["attempts"]
    assert [attempt["error"] for attempt in attempts] == ["fault: dropped", None]
    assert [refusal_reason(received, secret) for received in receiver.received] == [None]


def test_a_delivery_is_delayed_once_in_the_merchants_time(world: World, receiver: Receiver) -> None:
    create_endpoint(world, receiver)
    create_fault(world, "webhooks", "delay", milliseconds=3_600_000)
    world.create_payout("0004")
    (delivery,) = until(lambda: [d for d in world.get("/api/v1/webhook-deliveries").json()["data"] if d["attempt_count"]])
    assert (delivery["status"], receiver.received) == ("PENDING", [])
    world.shift_clock(3600)
    until(lambda: world.get("/api/v1/webhook-deliveries").json()["data"][0]["status"] == "SUCCEEDED")
    assert len(receiver.received) == 1


def attempts_of(world: World) -> list[dict[str, Any]]:
    """Return all attempts of the merchant's only delivery."""
    (delivery,) = world.get("/api/v1/webhook-deliveries").json()["data"]
    found: list[dict[str, Any]] = world.get(f"/api/v1/webhook-deliveries/{delivery['id']}").json()["attempts"]
    return found


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("drop", {}), ("duplicate", {}), ("delay", {"milliseconds": 3000}), ("reorder", {}), ("stale_timestamp", {}),
        ("wrong_key", {}), ("tampered_body", {}), ("truncated_body", {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_frozen", [False, True])
def test_an_attempt_that_a_fault_hit_has_its_id_and_shows_what_was_sent(
    world: World, receiver: Receiver, kind: str, parameters: dict[str, Any], is_frozen: bool
) -> None:
    """The fault's id and the request stay on the attempt after the fault is deleted."""
    create_endpoint(world, receiver)
    if is_frozen:
        world.client.post("/sandbox/v1/clock/freeze", json={})
    created = create_fault(world, "webhooks", kind, count=1, **parameters)
    world.create_payout("0004")
    until(lambda: world.get("/api/v1/webhook-deliveries").json()["data"][0]["attempt_count"])
    assert world.client.delete(f"{FAULTS}/{created['id']}").status_code == 204
    first = attempts_of(world)[0]
    assert (first["fault_id"], first["fault_kind"]) == (created["id"], kind)
    if first["request"] is None:
        assert first["error"].startswith("fault: ")
        assert first["error_class"] == "FAULT"
        # A delayed or dropped delivery is attempted again without the fault.
        world.client.post("/sandbox/v1/clock/advance", json={"seconds": 5})
        until(lambda: len(attempts_of(world)) == 2)
        assert (attempts_of(world)[1]["fault_id"], attempts_of(world)[1]["fault_kind"]) == (None, None)
        assert len(receiver.received) == 1
    else:
        received = receiver.received[-1]
        assert first["request"]["body"].encode() == received.body
        assert {**received.headers, **first["request"]["headers"]} == dict(received.headers)


def test_in_a_frozen_world_a_reordered_delivery_arrives_after_the_others_of_its_second(
    world: World, receiver: Receiver
) -> None:
    create_endpoint(world, receiver)
    world.client.post("/sandbox/v1/clock/freeze", json={})
    created = create_fault(world, "webhooks", "reorder", count=1)
    first, second = world.create_payout("0004")["id"], world.create_payout("0004")["id"]
    assert world.client.post("/sandbox/v1/drain").json()["drained"]
    assert ([event["data"]["id"] for event in receiver.events()], hits(world, created)) == ([second], (1, 0))
    assert world.client.post("/sandbox/v1/clock/advance", json={"seconds": 1}).json()["complete"]
    assert [event["data"]["id"] for event in receiver.events()] == [second, first]


def test_a_reordered_delivery_arrives(world: World, receiver: Receiver) -> None:
    """The order is not checked. If two workers have one delivery each, the first is sent after a second at the latest."""
    create_endpoint(world, receiver)
    created = create_fault(world, "webhooks", "reorder", count=1)
    first = world.create_payout("0004")["id"]
    until(lambda: hits(world, created) == (1, 0))
    second = world.create_payout("0004")["id"]
    until(lambda: len(receiver.received) == 2)
    assert {event["data"]["id"] for event in receiver.events()} == {first, second}


def test_only_matching_deliveries_are_hit(world: World, receiver: Receiver) -> None:
    create_endpoint(world, receiver, event_types=["payout.*"])
    with Receiver() as other_receiver:
        other = create_endpoint(world, other_receiver)
        match = {"event_type": "payout.c*", "endpoint_id": other["id"]}
        create_fault(world, "webhooks", "drop", match=match)
        world.create_payout("0001")
        receiver.wait_for("payout.created", "payout.processing", "payout.succeeded")
        found = until(
            lambda: world.get("/api/v1/webhook-deliveries", endpoint_id=other["id"]).json()["data"][0]["attempt_count"]
        )
        assert (found >= 1, other_receiver.received) == (True, [])


def test_a_fault_hits_the_very_next_delivery_and_a_duplicate_has_the_same_id(world: World, receiver: Receiver) -> None:
    create_endpoint(world, receiver, event_types=["payout.created"])
    world.client.post("/sandbox/v1/clock/freeze", json={})
    for number in range(1, 4):
        world.create_payout("0004")
        assert world.client.post("/sandbox/v1/drain").json()["drained"]
        created = create_fault(world, "webhooks", "duplicate", count=1)
        world.create_payout("0004")
        assert world.client.post("/sandbox/v1/drain").json()["drained"]
        assert (hits(world, created), len(receiver.received)) == ((1, 0), 3 * number)
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 6


def test_the_same_deliveries_are_hit_in_two_worlds_with_the_same_seed(stack: Stack, receiver: Receiver) -> None:
    """The result does not depend on which worker sends them, or in which order."""

    def dropped() -> list[str]:
        with World.create(stack, seed=7, opening_balance="1000000.00") as world:
            world.client.post("/sandbox/v1/clock/freeze", json={"at": "2031-01-01T00:00:00Z"})
            create_endpoint(world, receiver, event_types=["payout.created"])
            create_fault(world, "webhooks", "drop", probability=0.5, seed=42)
            batch = [world.payout_body("0004", merchant_reference=f"R{number}") for number in range(40)]
            assert world.post("/api/v1/payouts/batch", {"payouts": batch}, key="batch").status_code == 200
            assert world.client.post("/sandbox/v1/drain").json()["drained"]
            found = world.get("/api/v1/webhook-deliveries", limit=100).json()["data"]
            assert len(found) == 40
            return sorted(delivery["id"] for delivery in found if delivery["status"] == "PENDING")

    first = dropped()
    assert 10 < len(first) < 30
    assert dropped() == first


# Probability and delay, without a database.


def test_hits_and_delays_follow_from_the_seed() -> None:
    def make_fault(**fields: Any) -> Fault:
        return Fault(**{"id": "f", "kind": "latency", "match": {}, "parameters": {}, "probability": 0.25, "seed": 1, **fields})

    one, same, other = make_fault(), make_fault(id="g"), make_fault(seed=2)
    draw_keys = [str(number) for number in range(2000)]
    draws = [one.hits(draw_key) for draw_key in draw_keys]
    assert draws == [same.hits(draw_key) for draw_key in draw_keys] != [other.hits(draw_key) for draw_key in draw_keys]
    assert 400 < sum(draws) < 600
    assert make_fault(parameters={"milliseconds": 250.0}).milliseconds(1) == 250
    spread = sorted(make_fault(parameters={"milliseconds": 250.0, "sigma": 1.0}).milliseconds(n) for n in range(1001))
    assert spread[0] < 50 < 200 < spread[500] < 320 < 1000 < spread[-1] <= MAX_MS
    assert make_fault(parameters={"milliseconds": 60_000.0, "sigma": 3.0}).milliseconds(3) <= MAX_MS
