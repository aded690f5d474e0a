"""A merchant's clock stands still when told, never goes back, and runs all that falls due on its way, in order, once."""

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

from sandbox.clock.advancer import ClockAdvancer
from sandbox.db.engine import close_pool, open_pool
from sandbox.domain.webhook_schedule import next_attempt
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.webhooks.attempt import AttemptRunner
from sandbox.webhooks.sender import WebhookSender
from tests.harness.receiver import Received, Receiver
from tests.harness.waiting import until
from tests.harness.work import units_of_work
from tests.harness.world import Stack, World


def clock(world: World, verb: str, key: str | None = None, **body: Any) -> dict[str, Any]:
    """POST to the clock; it must be accepted."""
    headers = {} if key is None else {"X-IDEMPOTENCY-KEY": key}
    response = world.client.post(f"/sandbox/v1/clock/{verb}", json=body, headers=headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


def attempts(world: World) -> list[dict[str, Any]]:
    """All attempts of the merchant's one delivery."""
    (delivery,) = world.get("/api/v1/webhook-deliveries").json()["data"]
    found: list[dict[str, Any]] = world.get(f"/api/v1/webhook-deliveries/{delivery['id']}").json()["attempts"]
    return found


def test_a_frozen_clock_stands_still_and_runs_on_from_where_it_stood(world: World) -> None:
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


def test_it_is_frozen_at_a_time_to_come_and_goes_on_to_a_later_one(world: World) -> None:
    assert clock(world, "freeze", at="2031-05-01T12:00:00+05:00")["now"] == "2031-05-01T07:00:00.000Z"
    later = clock(world, "freeze", at="2031-06-01T00:00:00Z")
    assert (later["from"], later["now"], later["frozen"]) == ("2031-05-01T07:00:00.000Z", "2031-06-01T00:00:00.000Z", True)
    assert clock(world, "advance", to="2031-06-01T00:00:01.5Z")["now"] == "2031-06-01T00:00:01.500Z"


def test_an_advance_of_nothing_stays_where_it_is_and_runs_what_is_due(world: World) -> None:
    at = "2031-05-01T00:00:00.000Z"
    clock(world, "freeze", at=at)
    for body in ({"seconds": 0}, {"seconds": 0.0}, {"to": at}):
        done = clock(world, "advance", **body)
        assert (done["from"], done["now"], done["complete"], done["steps"]) == (at, at, True, 0)


@pytest.mark.parametrize(
    ("verb", "body", "field"),
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
def test_it_goes_forward_only_and_says_what_is_wrong(world: World, verb: str, body: dict[str, Any], field: str) -> None:
    world.create_payout("0004")
    response = world.client.post(f"/sandbox/v1/clock/{verb}", json=body)
    assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR"), response.text
    assert response.json()["errors"][0]["field"] == field
    assert not world.get("/sandbox/v1/clock").json()["frozen"]


def test_steps_run_at_their_own_times(world: World) -> None:
    """Retries after 2, 4 and 8 s, then a failure: each change carries the time at which it fell due."""
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


def test_a_payout_settled_at_once_in_a_frozen_world_keeps_all_its_times(world: World) -> None:
    frozen = clock(world, "freeze")["now"]
    payout = world.create_payout("0001")
    settled = world.payout(payout["id"])
    assert (settled["status"], settled["processed_at"], settled["attempts"]) == ("SUCCESS", frozen, 1)
    assert world.path_of(payout["id"]) == ["PENDING", "PROCESSING", "SUCCESS"]
    assert world.balance() == ("999900.00", "0.00")
    world.assert_clean()


def test_an_endpoint_down_for_days_gets_its_ten_attempts_in_one_advance(world: World, receiver: Receiver) -> None:
    """At their right times, the return of a payout among them in order; and a resend afterwards recovers."""
    receiver.respond = lambda _: (500, {}, b"down")
    clock(world, "freeze", at="2031-01-01T00:00:00Z")
    created = world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.created"]})
    assert created.status_code == 201
    payout = world.create_payout("0012")
    assert world.payout(payout["id"])["status"] == "SUCCESS"
    # The first attempt, a worker's or the clock's, is made at once; it is waited for and not listed.
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
    for made in range(1, 10):
        due = next_attempt("standard", made, expected[-1], delivery["id"])
        assert due is not None
        milliseconds = timedelta(milliseconds=-(-(due - expected[0]) // timedelta(milliseconds=1)))
        # A clock of whole milliseconds has reached a time with its next reading.
        exact = expected[0] + milliseconds
        expected.append(exact if exact >= due else exact + timedelta(milliseconds=1))
    assert [time_of(attempt["at"]) for attempt in attempts(world)] == expected
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1
    told = [time_of(received.headers["x-sandbox-now"]) for received in receiver.received]
    assert told == expected
    assert world.balance() == ("1000000.00", "0.00")

    receiver.respond = lambda _: (200, {}, b"")
    assert world.post(f"/api/v1/webhook-deliveries/{delivery['id']}/resend").status_code == 200
    assert world.client.post("/sandbox/v1/drain").json()["drained"]
    (delivery,) = world.get("/api/v1/webhook-deliveries").json()["data"]
    assert (delivery["status"], delivery["attempt_count"]) == ("SUCCEEDED", 11)
    world.assert_clean()


def test_a_running_clock_is_put_forward_and_runs_on(world: World, receiver: Receiver) -> None:
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.returned"]})
    payout = world.create_payout("0012")
    world.wait_for(payout["id"], "SUCCESS")
    began = time.monotonic()
    run = clock(world, "advance", seconds=60)
    took = time.monotonic() - began
    assert run["complete"]
    assert not run["frozen"]
    # Where it goes to is settled when it begins, in whole milliseconds; what it takes is a part of the way.
    assert 60 - took - 0.002 <= run["offset_seconds"] <= 60
    assert world.payout(payout["id"])["status"] == "RETURNED"
    assert [event["type"] for event in receiver.events()] == ["payout.returned"]
    assert [entry["kind"] for entry in run["ran"]] == ["payout_step", "delivery_attempt"]
    world.assert_clean()


def test_only_one_moves_the_clock_and_a_slow_answer_does_not(world: World, receiver: Receiver) -> None:
    asked, free = threading.Event(), threading.Event()

    def response(_: Received) -> tuple[int, dict[str, str], bytes]:
        asked.set()
        free.wait(30)
        return 200, {}, b""

    receiver.respond = response
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.returned"]})
    clock(world, "freeze", at="2031-01-01T00:00:00Z")
    world.create_payout("0012")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(clock, world, "advance", seconds=60)
        assert asked.wait(30)
        second = world.client.post("/sandbox/v1/clock/advance", json={"seconds": 1})
        assert (second.status_code, second.json()["code"]) == (409, "INVALID_STATE")
        assert world.client.post("/sandbox/v1/clock/resume").json()["code"] == "INVALID_STATE"
        free.set()
        run = first.result()
    assert (run["complete"], run["now"]) == (True, "2031-01-01T00:01:00.000Z")
    (attempt,) = attempts(world)
    assert attempt["at"] == "2031-01-01T00:01:00.000Z"
    assert clock(world, "advance", seconds=1)["now"] == "2031-01-01T00:01:01.000Z"


def test_an_advance_repeated_under_its_key_happens_once(world: World) -> None:
    start = time_of(clock(world, "freeze")["now"])
    key = str(uuid.uuid4())
    first = clock(world, "advance", key, seconds=10)
    again = world.client.post("/sandbox/v1/clock/advance", json={"seconds": 10}, headers={"X-IDEMPOTENCY-KEY": key})
    assert (again.json(), again.headers["idempotent-replayed"]) == (first, "true")
    assert time_of(world.get("/sandbox/v1/clock").json()["now"]) == start + timedelta(seconds=10)
    other = world.client.post("/sandbox/v1/clock/advance", json={"seconds": 11}, headers={"X-IDEMPOTENCY-KEY": key})
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert time_of(world.get("/sandbox/v1/clock").json()["now"]) == start + timedelta(seconds=10)


def test_an_answer_lists_a_thousand_and_counts_all(world: World) -> None:
    clock(world, "freeze")
    for size in (1000, 1):
        batch = [world.payout_body("0012", amount="1.00") for _ in range(size)]
        assert world.post("/api/v1/payouts/batch", {"payouts": batch}).status_code == 200
    run = clock(world, "advance", seconds=60)
    assert (run["complete"], run["steps"], len(run["ran"])) == (True, 1001, 1000)
    assert world.balance() == ("1000000.00", "0.00")
    world.assert_clean()


@pytest.fixture
async def pool(stack: Stack) -> AsyncIterator[None]:
    await open_pool(stack.database_url, 2)
    yield
    await close_pool()


async def test_a_run_takes_so_many_steps_and_says_so(world: World, pool: None) -> None:
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


async def test_a_run_takes_so_long_and_says_so(world: World, pool: None) -> None:
    """It waits at its stop for a delivery that a worker holds, but not for ever, and does not pass it."""
    world.post("/api/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/nobody", "event_types": ["payout.created"]})
    clock(world, "freeze")
    world.create_payout("0004")
    await asyncio.to_thread(until, lambda: len(attempts(world)) == 1)
    hold = "UPDATE webhook_deliveries SET leased_until = now() + interval '1 hour' WHERE merchant_id = $1 RETURNING *"
    (due,) = await asyncio.to_thread(world.stack.execute, hold, world.merchant_id)
    advancer = ClockAdvancer(units_of_work(), seconds=0.3)
    sender = WebhookSender()
    advancer.set_attempts(AttemptRunner(sender, SecretBox(bytes(32))))
    stopped = await advancer.run(world.merchant_id, due["next_attempt_at"] + timedelta(days=1))
    await sender.close()
    assert (stopped.stopped_because, stopped.steps) == ("0.3 seconds of real time have passed", 0)
    assert timedelta(0) <= stopped.now - due["next_attempt_at"] <= timedelta(milliseconds=1)


def test_drain_answers_when_nothing_due_is_left(world: World, receiver: Receiver) -> None:
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


def test_a_frozen_world_is_left_alone_by_the_passing_of_real_time(world: World) -> None:
    clock(world, "freeze")
    payout = world.create_payout("0002")
    with World.create(world.stack, opening_balance="1000.00") as other:
        running = other.create_payout("0002")
        other.wait_for(running["id"], "SUCCESS")  # two seconds there
    assert world.payout(payout["id"])["status"] == "RETRY"
    clock(world, "resume")
    assert until(lambda: world.payout(payout["id"])["status"] == "SUCCESS")


def test_a_world_in_which_nothing_has_happened_is_frozen_at_any_moment(world: World) -> None:
    frozen = clock(world, "freeze", at="2026-01-01T00:00:00.000Z")
    assert (frozen["now"], frozen["from"], frozen["complete"]) == ("2026-01-01T00:00:00.000Z",) * 2 + (True,)
    assert world.create_payout("0012")["created_at"] == frozen["now"]
    back = world.client.post("/sandbox/v1/clock/freeze", json={"at": "2025-12-31T00:00:00.000Z"})
    assert (back.status_code, back.json()["errors"][0]["field"]) == (400, "at")
    assert clock(world, "advance", seconds=60)["ran"][-1]["to"] == "RETURNED"
    world.assert_clean()


def test_drain_works_off_a_bulk_credit(world: World) -> None:
    clock(world, "freeze")
    user_id = world.post("/api/v1/users", {"name": "Ayesha"}).json()["id"]
    world.client.post(
        "/api/v1/wallet/bulk-credit",
        files={"file": f"uuid,amount\n{user_id},5\n"},
        headers={"X-IDEMPOTENCY-KEY": str(uuid.uuid4())},
    )
    assert world.client.post("/sandbox/v1/drain").json()["drained"]
    assert world.get(f"/api/v1/users/{user_id}/summary").json()["credited"] == "5.00"


def test_a_summary_is_kept_for_two_minutes_of_the_merchants_time(world: World) -> None:
    clock(world, "freeze")
    path = f"/api/v1/users/{world.post('/api/v1/users', {'name': 'Ayesha'}).json()['id']}/summary"
    assert [world.get(path).headers["x-cache"] for _ in range(2)] == ["MISS", "HIT"]
    clock(world, "advance", seconds=120)
    assert [world.get(path).headers["x-cache"] for _ in range(2)] == ["MISS", "HIT"]
    for _ in range(3):
        clock(world, "advance", seconds=40)
    assert world.get(path).headers["x-cache"] == "MISS"


def test_a_limit_counts_what_is_passed_by_hand(world: World) -> None:
    clock(world, "freeze")
    assert world.client.patch("/sandbox/v1/settings", json={"rate_limit": 1}).status_code == 200
    until(lambda: world.get("/api/v1/balance").status_code == 429)
    clock(world, "advance", seconds=60)
    assert [world.get("/api/v1/balance").status_code for _ in range(2)] == [200, 429]
