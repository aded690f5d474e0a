"""A merchant's clock can be frozen, never goes back, and runs all due work exactly once, in order."""

import asyncio
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.webhooks.delivery.attempt import AttemptRunner
from sandbox.webhooks.delivery.retry_schedule import next_attempt
from sandbox.webhooks.outbound.sender import WebhookSender
from sandbox.worlds.clock.advancer import ClockAdvancer
from tests.harness.receiver import Received, Receiver
from tests.harness.waiting import until
from tests.harness.work import units_of_work
from tests.harness.world import World


def clock(world: World, action: str, key: str | None = None, **body: Any) -> dict[str, Any]:
    """Run an action on the clock and return the response. Fails unless the response is 200."""
    headers = {} if key is None else {"X-IDEMPOTENCY-KEY": key}
    response = world.client.post(f"/sandbox/v1/clock/{action}", json=body, headers=headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


def attempts(world: World) -> list[dict[str, Any]]:
    """Return all attempts of the merchant's only delivery."""
    (delivery,) = world.get("/api/v1/webhook-deliveries").json()["data"]
    found: list[dict[str, Any]] = world.get(f"/api/v1/webhook-deliveries/{delivery['id']}").json()["attempts"]
    return found


def test_a_frozen_clock_stays_frozen_and_resumes_from_that_time(world: World) -> None:
    running = world.get("/sandbox/v1/clock").json()
    assert (running["frozen"], running["frozen_at"], abs(running["offset_seconds"]) < 0.001) == (False, None, True)
    frozen = clock(world, "freeze")
    assert frozen["frozen"]
    assert frozen["frozen_at"] == frozen["now"]
    assert frozen["now"] >= running["now"]
    world.post("/sandbox/v1/balance/top-up", {"amount": "1.00"})
    state = world.get("/sandbox/v1/clock").json()
    assert state["now"] == frozen["now"]
    assert clock(world, "freeze")["now"] == frozen["now"]
    later = clock(world, "advance", seconds=3600)
    assert (later["from"], later["complete"], later["steps"], later["ran"]) == (frozen["now"], True, 0, [])
    assert time_of(later["now"]) == time_of(frozen["now"]) + timedelta(hours=1)
    resumed = clock(world, "resume")
    assert resumed["now"] >= later["now"]
    assert not resumed["frozen"]
    assert 3500 < resumed["offset_seconds"] <= 3600
    assert clock(world, "resume")["now"] >= resumed["now"]


def test_the_clock_can_be_frozen_in_the_future_and_moved_later(world: World) -> None:
    assert clock(world, "freeze", at="2031-05-01T12:00:00+05:00")["now"] == "2031-05-01T07:00:00.000Z"
    later = clock(world, "freeze", at="2031-06-01T00:00:00Z")
    assert (later["from"], later["now"], later["frozen"]) == ("2031-05-01T07:00:00.000Z", "2031-06-01T00:00:00.000Z", True)
    assert clock(world, "advance", to="2031-06-01T00:00:01.5Z")["now"] == "2031-06-01T00:00:01.500Z"


def test_a_zero_advance_keeps_the_time(world: World) -> None:
    at = "2031-05-01T00:00:00.000Z"
    clock(world, "freeze", at=at)
    for body in ({"seconds": 0}, {"seconds": 0.0}, {"to": at}):
        done = clock(world, "advance", **body)
        assert (done["from"], done["now"], done["complete"], done["steps"]) == (at, at, True, 0)


@pytest.mark.parametrize(
    ("action", "body", "field"),
    [
        ("advance", {}, "seconds"),
        ("advance", {"seconds": 1, "to": "2031-01-01T00:00:00Z"}, "seconds"),
        ("advance", {"seconds": -1}, "seconds"),
        ("advance", {"seconds": 315_360_001}, "seconds"),
        ("advance", {"seconds": None}, "seconds"),
        ("advance", {"to": "2020-01-01T00:00:00Z"}, "to"),
        ("advance", {"to": "2300-01-01T00:00:00Z"}, "to"),
        ("advance", {"to": "2031-01-01T00:00:00"}, "to"),
        ("advance", {"to": "0001-01-01T00:00:00+14:00"}, "to"),
        ("freeze", {"at": "2020-01-01T00:00:00Z"}, "at"),
        ("freeze", {"at": "tomorrow"}, "at"),
        ("freeze", {"until": "2031-01-01T00:00:00Z"}, "until"),
    ],
)
def test_invalid_and_backward_clock_changes_are_refused(world: World, action: str, body: dict[str, Any], field: str) -> None:
    world.create_payout("0004")
    response = world.client.post(f"/sandbox/v1/clock/{action}", json=body)
    assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR"), response.text
    assert response.json()["errors"][0]["field"] == field
    assert not world.get("/sandbox/v1/clock").json()["frozen"]


def test_steps_run_at_their_due_times(world: World) -> None:
    """Retries after 2, 4 and 8 s, then a failure: each change has the time at which it was due."""
    start = time_of(clock(world, "freeze")["now"])
    payout = world.create_payout("0011")
    assert payout["status"] == "PENDING"
    assert world.payout(payout["id"])["status"] == "RETRY"
    assert clock(world, "advance", seconds=1.5)["steps"] == 0
    run = clock(world, "advance", seconds=100)
    assert run["steps"] == len(run["ran"]) == 6
    assert [(step["to"], (time_of(step["at"]) - start).total_seconds()) for step in run["ran"]] == [
        ("PROCESSING", 2), ("RETRY", 2), ("PROCESSING", 6), ("RETRY", 6), ("PROCESSING", 14), ("FAILED", 14),
    ]  # fmt: skip
    assert {step["kind"] for step in run["ran"]} == {"payout_step"}
    failed = world.payout(payout["id"])
    assert (failed["status"], time_of(failed["processed_at"]) - start) == ("FAILED", timedelta(seconds=14))
    world.assert_clean()


def test_a_payout_that_settles_at_once_in_a_frozen_world_has_its_times_and_timeline(world: World) -> None:
    frozen = clock(world, "freeze")["now"]
    payout = world.create_payout("0001")
    settled = world.payout(payout["id"])
    assert (settled["status"], settled["processed_at"], settled["attempts"]) == ("SUCCESS", frozen, 1)
    assert world.path_of(payout["id"]) == ["PENDING", "PROCESSING", "SUCCESS"]
    assert world.balance() == ("999900.00", "0.00")
    world.assert_clean()


def test_one_advance_makes_all_ten_attempts_to_an_endpoint_that_is_down_for_days(world: World, receiver: Receiver) -> None:
    """Attempts are made on schedule, interleaved with the payout's return; a later resend succeeds."""
    receiver.respond = lambda _: (500, {}, b"down")
    clock(world, "freeze", at="2031-01-01T00:00:00Z")
    created = world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.created"]})
    assert created.status_code == 201
    payout = world.create_payout("0012")
    assert world.payout(payout["id"])["status"] == "SUCCESS"
    # The first attempt is made immediately, by a worker or the clock. The advance waits for it but does not list it.
    run = clock(world, "advance", seconds=80 * 3600)
    assert run["complete"]
    assert run["stopped_because"] is None
    assert [entry["at"] for entry in run["ran"]] == sorted(entry["at"] for entry in run["ran"])
    kinds = [(entry["kind"], entry.get("to") or entry["attempt"]) for entry in run["ran"]]
    assert kinds == [
        ("delivery_attempt", 2), ("payout_step", "RETURNED"), *(("delivery_attempt", n) for n in range(3, 11)),
    ]  # fmt: skip
    returned = run["ran"][1]
    assert (returned["payout_id"], returned["from"], returned["at"]) == (payout["id"], "SUCCESS", "2031-01-01T00:01:00.000Z")
    assert {(entry["outcome"], entry["status"]) for entry in run["ran"] if "outcome" in entry} == {("failed", 500)}

    (delivery,) = world.get("/api/v1/webhook-deliveries").json()["data"]
    assert (delivery["status"], delivery["attempt_count"], delivery["next_attempt_at"]) == ("FAILED", 10, None)
    expected = [time_of("2031-01-01T00:00:00.000+00:00")]
    for attempts_made in range(1, 10):
        due = next_attempt("standard", attempts_made, expected[-1], delivery["id"])
        assert due is not None
        milliseconds = timedelta(milliseconds=-(-(due - expected[0]) // timedelta(milliseconds=1)))
        # The clock has millisecond resolution, so a due time is reached at the next whole millisecond.
        exact = expected[0] + milliseconds
        expected.append(exact if exact >= due else exact + timedelta(milliseconds=1))
    assert [time_of(attempt["at"]) for attempt in attempts(world)] == expected
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1
    stated_times = [time_of(received.headers["x-sandbox-now"]) for received in receiver.received]
    assert stated_times == expected
    assert world.balance() == ("1000000.00", "0.00")

    receiver.respond = lambda _: (200, {}, b"")
    assert world.post(f"/api/v1/webhook-deliveries/{delivery['id']}/resend").status_code == 200
    assert world.client.post("/sandbox/v1/drain").json()["drained"]
    (delivery,) = world.get("/api/v1/webhook-deliveries").json()["data"]
    assert (delivery["status"], delivery["attempt_count"]) == ("SUCCEEDED", 11)
    world.assert_clean()


def test_a_running_clock_can_be_advanced_and_keeps_running(world: World, receiver: Receiver) -> None:
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.returned"]})
    payout = world.create_payout("0012")
    world.wait_for(payout["id"], "SUCCESS")
    started = time.monotonic()
    run = clock(world, "advance", seconds=60)
    took = time.monotonic() - started
    assert run["complete"]
    assert not run["frozen"]
    # The target is fixed at the start, in whole milliseconds, so the time that the call takes is part of the 60 s.
    assert 60 - took - 0.002 <= run["offset_seconds"] <= 60
    assert world.payout(payout["id"])["status"] == "RETURNED"
    assert [event["type"] for event in receiver.events()] == ["payout.returned"]
    assert [entry["kind"] for entry in run["ran"]] == ["payout_step", "delivery_attempt"]
    world.assert_clean()


def test_concurrent_advances_are_refused_and_slow_webhooks_do_not_move_the_clock(world: World, receiver: Receiver) -> None:
    request_arrived, may_respond = threading.Event(), threading.Event()

    def respond(_: Received) -> tuple[int, dict[str, str], bytes]:
        request_arrived.set()
        may_respond.wait(30)
        return 200, {}, b""

    receiver.respond = respond
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.returned"]})
    clock(world, "freeze", at="2031-01-01T00:00:00Z")
    world.create_payout("0012")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(clock, world, "advance", seconds=60)
        assert request_arrived.wait(30)
        second = world.client.post("/sandbox/v1/clock/advance", json={"seconds": 1})
        assert (second.status_code, second.json()["code"]) == (409, "INVALID_STATE")
        assert world.client.post("/sandbox/v1/clock/resume").json()["code"] == "INVALID_STATE"
        may_respond.set()
        run = first.result()
    assert (run["complete"], run["now"]) == (True, "2031-01-01T00:01:00.000Z")
    (attempt,) = attempts(world)
    assert attempt["at"] == "2031-01-01T00:01:00.000Z"
    assert clock(world, "advance", seconds=1)["now"] == "2031-01-01T00:01:01.000Z"


def test_the_response_lists_at_most_1000_steps_but_counts_all(world: World) -> None:
    clock(world, "freeze")
    for size in (1000, 1):
        batch = [world.payout_body("0012", amount="1.00") for _ in range(size)]
        assert world.post("/api/v1/payouts/batch", {"payouts": batch}).status_code == 200
    run = clock(world, "advance", seconds=60)
    assert (run["complete"], run["steps"], len(run["ran"])) == (True, 1001, 1000)
    assert world.balance() == ("1000000.00", "0.00")
    world.assert_clean()


async def test_an_advance_stops_at_the_step_limit_and_says_so(world: World, pool: None) -> None:
    clock(world, "freeze", at="2031-01-01T00:00:00Z")
    world.create_payout("0012")
    clock(world, "advance", seconds=1)
    world.create_payout("0012")
    advancer, target = ClockAdvancer(units_of_work(), steps=1), time_of("2031-01-01T01:00:00Z")
    first = await advancer.run(world.merchant_id, target)
    assert (first.stopped_because, first.steps, first.now) == ("1 steps were taken", 1, time_of("2031-01-01T00:01:00Z"))
    await advancer.run(world.merchant_id, target)
    last = await advancer.run(world.merchant_id, target)
    assert (last.stopped_because, last.steps, last.now) == (None, 0, target)


async def test_an_advance_stops_at_the_time_limit_and_says_so(world: World, pool: None) -> None:
    """It waits up to its time limit for a delivery leased by a worker, and does not advance past it."""
    world.post("/api/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/nobody", "event_types": ["payout.created"]})
    clock(world, "freeze")
    world.create_payout("0004")
    await asyncio.to_thread(until, lambda: len(attempts(world)) == 1)
    lease = "UPDATE webhook_deliveries SET leased_until = now() + interval '1 hour' WHERE merchant_id = $1 RETURNING *"
    (due,) = await asyncio.to_thread(world.stack.execute, lease, world.merchant_id)
    advancer = ClockAdvancer(units_of_work(), seconds=2)
    sender = WebhookSender()
    advancer.set_attempts(AttemptRunner(sender, SecretBox(bytes(32))))
    stopped = await advancer.run(world.merchant_id, due["next_attempt_at"] + timedelta(days=1))
    await sender.close()
    assert (stopped.stopped_because, stopped.steps) == ("2 seconds of real time have passed", 0)
    assert timedelta(0) <= stopped.now - due["next_attempt_at"] <= timedelta(milliseconds=1)


def test_drain_responds_once_no_due_work_is_left(world: World, receiver: Receiver) -> None:
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url})
    steps = [{"to": "PROCESSING"}, {"to": "SUCCESS", "after": 3600}]
    rule = {"name": "hour", "match": {"suffix": "0013"}, "steps": steps}
    assert world.client.post("/sandbox/v1/scenarios", json=rule).status_code == 201
    payouts = [world.create_payout(suffix) for suffix in ("0001", "0003", "0013", "0004")]
    drained = world.client.post("/sandbox/v1/drain")
    assert (drained.status_code, drained.json()["drained"]) == (200, True), drained.text
    assert [world.payout(payout["id"])["status"] for payout in payouts] == ["SUCCESS", "FAILED", "PROCESSING", "PENDING"]
    assert len(receiver.events()) == 3 + 3 + 2 + 1
    waiting = world.get("/api/v1/webhook-deliveries", status="PENDING").json()["data"]
    assert not waiting
    assert world.client.post("/sandbox/v1/drain", json={"now": True}).status_code == 400


def test_a_frozen_world_does_not_change_while_real_time_passes(world: World) -> None:
    clock(world, "freeze")
    payout = world.create_payout("0002")
    with World.create(world.stack, opening_balance="1000.00") as other:
        running = other.create_payout("0002")
        other.wait_for(running["id"], "SUCCESS")  # two seconds of the running clock have passed
    assert world.payout(payout["id"])["status"] == "RETRY"
    clock(world, "resume")
    assert until(lambda: world.payout(payout["id"])["status"] == "SUCCESS")


def test_an_unused_merchant_can_be_frozen_at_any_time(world: World) -> None:
    frozen = clock(world, "freeze", at="2026-01-01T00:00:00.000Z")
    assert (frozen["now"], frozen["from"], frozen["complete"]) == ("2026-01-01T00:00:00.000Z",) * 2 + (True,)
    assert world.create_payout("0012")["created_at"] == frozen["now"]
    back = world.client.post("/sandbox/v1/clock/freeze", json={"at": "2025-12-31T00:00:00.000Z"})
    assert (back.status_code, back.json()["errors"][0]["field"]) == (400, "at")
    assert clock(world, "advance", seconds=60)["ran"][-1]["to"] == "RETURNED"
    world.assert_clean()


def test_drain_completes_a_bulk_credit(world: World) -> None:
    clock(world, "freeze")
    user_id = world.post("/api/v1/users", {"name": "Ayesha"}).json()["id"]
    world.client.post(
        "/api/v1/wallet/bulk-credit",
        files={"file": f"uuid,amount\n{user_id},5\n"},
        headers={"X-IDEMPOTENCY-KEY": str(uuid.uuid4())},
    )
    assert world.client.post("/sandbox/v1/drain").json()["drained"]
    assert world.get(f"/api/v1/users/{user_id}/summary").json()["credited"] == "5.00"


def test_a_summary_is_cached_for_two_minutes_of_the_merchants_time(world: World) -> None:
    clock(world, "freeze")
    path = f"/api/v1/users/{world.post('/api/v1/users', {'name': 'Ayesha'}).json()['id']}/summary"
    assert [world.get(path).headers["x-cache"] for _ in range(2)] == ["MISS", "HIT"]
    clock(world, "advance", seconds=120)
    assert [world.get(path).headers["x-cache"] for _ in range(2)] == ["MISS", "HIT"]
    for _ in range(3):
        clock(world, "advance", seconds=40)
    assert world.get(path).headers["x-cache"] == "MISS"


def test_advancing_the_clock_advances_the_rate_limit_window(world: World) -> None:
    clock(world, "freeze")
    assert world.client.patch("/sandbox/v1/settings", json={"rate_limit": 1}).status_code == 200
    until(lambda: world.get("/api/v1/balance").status_code == 429)
    clock(world, "advance", seconds=60)
    assert [world.get("/api/v1/balance").status_code for _ in range(2)] == [200, 429]
