"""Webhooks out: endpoints, signatures, retries in the merchant's time, the log, and resending."""

from typing import Any

import pytest

from tests.harness.receiver import Received, Receiver
from tests.harness.waiting import until
from tests.harness.world import World


def endpoint(world: World, url: str, **members: Any) -> dict[str, Any]:
    """Register an endpoint; it must be accepted."""
    answer = world.post("/api/v1/webhook-endpoints", {"url": url, **members})
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


def deliveries(world: World, **filters: str) -> list[dict[str, Any]]:
    """The deliveries of a merchant, newest first."""
    answer = world.get("/api/v1/webhook-deliveries", **filters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def test_an_endpoints_life(world: World, receiver: Receiver) -> None:
    created = endpoint(world, receiver.url, event_types=["payout.*"], description="mine")
    path = f"/api/v1/webhook-endpoints/{created['id']}"
    assert created["secret"].startswith("whsec_")
    shown = world.get(path).json()
    assert shown == {name: value for name, value in created.items() if name != "secret"}
    assert [item["id"] for item in world.get("/api/v1/webhook-endpoints").json()["data"]] == [created["id"]]
    changed = world.patch(path, {"description": "yours", "retry_profile": "fast"})
    assert (changed.status_code, changed.json()["description"], changed.json()["retry_profile"]) == (200, "yours", "fast")
    with World.create(world.stack) as other:
        assert other.get(path).status_code == other.client.delete(path).status_code == 404
    assert world.client.delete(path).status_code == 204
    assert world.get(path).status_code == 404


@pytest.mark.parametrize(
    "members",
    [
        {"url": "ftp://example.com/x"},
        {"url": "http://user:password@127.0.0.1/x"},
        {"url": "http://169.254.169.254/latest/meta-data"},
        {"url": "http://10.0.0.1/x"},
        {"url": "nonsense"},
        {"event_types": ["payout.unheard_of"]},
        {"event_types": []},
        {"retry_profile": "never"},
        {"rate_limit": 0},
        {"unknown": 1},
    ],
)
def test_a_bad_endpoint_is_refused(world: World, receiver: Receiver, members: dict[str, Any]) -> None:
    answer = world.post("/api/v1/webhook-endpoints", {"url": receiver.url, **members})
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")


def test_a_repeat_gives_the_same_secret_and_none_rests_in_clear(world: World, receiver: Receiver) -> None:
    first, second = (world.post("/api/v1/webhook-endpoints", {"url": receiver.url}, key="once") for _ in range(2))
    assert (first.content, second.headers["idempotent-replayed"]) == (second.content, "true")
    secret = first.json()["secret"].removeprefix("whsec_")
    for table, column in (("idempotency_keys", "body"), ("webhook_endpoints", "secret"), ("merchants", "webhook_secret")):
        rows = world.stack.execute(f"SELECT {column} AS kept FROM {table} WHERE merchant_id = $1", world.merchant_id)
        assert rows
        assert all(secret.encode() not in row["kept"] for row in rows)


def test_an_endpoint_gets_what_it_subscribes_to_and_nothing_else(world: World, receiver: Receiver) -> None:
    endpoint(world, receiver.url, event_types=["payout.succeeded", "payout.failed"])
    good, bad = world.create_payout("0001"), world.create_payout("0003")
    receiver.wait_for("payout.succeeded", payout_id=good["id"])
    receiver.wait_for("payout.failed", payout_id=bad["id"])
    assert sorted(event["type"] for event in receiver.events()) == ["payout.failed", "payout.succeeded"]


def test_an_events_data_is_the_payout_as_it_was(world: World, receiver: Receiver) -> None:
    secret = endpoint(world, receiver.url)["secret"]
    payout = world.create_payout("0001", metadata={"order": "77"})
    receiver.wait_for("payout.created", "payout.processing", "payout.succeeded", payout_id=payout["id"])
    by_type = {received.verify(secret)["type"]: received.event["data"] for received in receiver.received}
    assert by_type["payout.created"] == payout
    assert [by_type[kind]["status"] for kind in sorted(by_type)] == ["PENDING", "PROCESSING", "SUCCESS"]
    assert by_type["payout.succeeded"] == world.payout(payout["id"])
    logged = world.get("/api/v1/events", payout_id=payout["id"]).json()["data"]
    assert [event["type"] for event in logged] == ["payout.succeeded", "payout.processing", "payout.created"]
    assert logged[-1]["data"] == payout


def test_a_failure_is_retried_in_the_merchants_time_until_it_succeeds(world: World, receiver: Receiver) -> None:
    """Standard profile: 0 s, 5 s, 5 min; the same webhook-id each time, a signature and a timestamp of its own."""
    refusals = [503, 500]

    def answer(_: Received) -> tuple[int, dict[str, str], bytes]:
        return (refusals.pop(0), {}, b"no") if refusals else (200, {}, b"yes")

    receiver.answer = answer
    secret = endpoint(world, receiver.url, event_types=["payout.created"])["secret"]
    world.create_payout("0004")
    for attempt, seconds in ((1, 5), (2, 300)):
        until(lambda attempt=attempt: deliveries(world)[0]["attempt_count"] >= attempt)
        world.pass_time(seconds)
    until(lambda: deliveries(world)[0]["status"] == "SUCCEEDED")
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1
    assert len({received.headers["webhook-timestamp"] for received in receiver.received}) == 3
    detail = world.get(f"/api/v1/webhook-deliveries/{deliveries(world)[0]['id']}").json()
    assert sorted((entry["attempt"], entry["status"]) for entry in detail["attempts"]) == [(1, 503), (2, 500), (3, 200)]
    assert secret not in str(detail)


def test_a_used_up_schedule_fails_and_can_be_resent(world: World, receiver: Receiver) -> None:
    receiver.answer = lambda _: (500, {}, b"no")
    endpoint(world, receiver.url, event_types=["payout.created"], retry_profile="fast")
    world.create_payout("0004")
    for attempt in range(1, 6):
        until(lambda attempt=attempt: deliveries(world)[0]["attempt_count"] >= attempt)
        world.pass_time(16)
    (failed,) = until(lambda: deliveries(world, status="FAILED"))
    assert (failed["attempt_count"], failed["next_attempt_at"]) == (6, None)
    receiver.answer = lambda _: (200, {}, b"")
    assert world.post(f"/api/v1/webhook-deliveries/{failed['id']}/resend").status_code == 200
    (resent,) = until(lambda: deliveries(world, status="SUCCEEDED"))
    assert (resent["id"], resent["attempt_count"]) == (failed["id"], 7)


def test_a_410_disables_the_endpoint_and_what_happens_then_is_kept(world: World, receiver: Receiver) -> None:
    receiver.answer = lambda _: (410, {}, b"")
    created = endpoint(world, receiver.url, event_types=["payout.created"])
    world.create_payout("0004")
    path = f"/api/v1/webhook-endpoints/{created['id']}"
    until(lambda: world.get(path).json()["status"] == "DISABLED")
    before = len(receiver.received)
    world.create_payout("0004")
    (paused,) = deliveries(world, status="PAUSED")
    assert world.post(f"/api/v1/webhook-deliveries/{paused['id']}/resend").json()["code"] == "INVALID_STATE"
    receiver.answer = lambda _: (200, {}, b"")
    assert world.patch(path, {"status": "ENABLED"}).status_code == 200
    assert world.post(f"/api/v1/webhook-deliveries/{paused['id']}/resend").status_code == 200
    until(lambda: deliveries(world, status="SUCCEEDED"))
    assert len(receiver.received) > before


def test_a_redirect_is_a_failure_and_never_followed(world: World, receiver: Receiver) -> None:
    with Receiver() as elsewhere:
        receiver.answer = lambda _: (302, {"location": elsewhere.url}, b"")
        endpoint(world, receiver.url, event_types=["payout.created"])
        world.create_payout("0004")
        (delivery,) = until(lambda: [found for found in deliveries(world) if found["attempt_count"]])
        assert delivery["status"] == "PENDING"
        attempts = world.get(f"/api/v1/webhook-deliveries/{delivery['id']}").json()["attempts"]
        assert [entry["status"] for entry in attempts] == [302] * len(attempts)
        assert not elsewhere.received
