"""`GET /webhook-deliveries/{id}/explain` leads from the API call to each attempt, and says why the next one is due then."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.domain.clock import RUNNING, Clock
from sandbox.webhooks.delivery.retry_schedule import next_attempt
from sandbox.webhooks.waiting_reasons import (
    DeliveryState,
    EndpointState,
    LastAttempt,
    duration,
    explain_holds,
    explain_next,
)
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World

FROZEN = {"at": "2031-01-01T00:00:00Z"}


def delivery_of(world: World, event_type: str, payout_id: str) -> str:
    events = until(
        lambda: [e for e in world.get("/api/v1/events", payout_id=payout_id).json()["data"] if e["type"] == event_type]
    )
    (delivery,) = world.get("/api/v1/webhook-deliveries", event_id=events[0]["id"]).json()["data"]
    found: str = delivery["id"]
    return found


def explain(world: World, delivery_id: str) -> dict[str, Any]:
    response = world.get(f"/api/v1/webhook-deliveries/{delivery_id}/explain")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def until_attempted(world: World, delivery_id: str, attempts: int) -> dict[str, Any]:
    return until(lambda: (e := explain(world, delivery_id)) and len(e["attempts"]) >= attempts and e) or {}


def test_it_leads_from_the_api_call_to_the_attempts(world: World, receiver: Receiver) -> None:
    world.client.post("/sandbox/v1/clock/freeze", json=FROZEN)
    endpoint = world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "retry_profile": "fast"}).json()
    receiver.respond = lambda _: (500, {}, b"")
    body = world.payout_body("0001", amount="250.00")
    payout = world.post("/api/v1/payouts", body, key="key-1", headers={"x-request-id": "request-1"}).json()
    delivery_id = delivery_of(world, "payout.succeeded", payout["id"])
    until(lambda: explain(world, delivery_id)["request"]["method"])
    found = until_attempted(world, delivery_id, 1)
    (admin,) = world.get("/sandbox/v1/keys").json()["data"]
    request, change = found["request"], found["change"]
    assert (request["request_id"], request["method"], request["path"]) == ("request-1", "POST", "/api/v1/payouts")
    assert (request["status"], request["idempotency_key"], request["api_key_id"]) == (201, "key-1", admin["id"])
    entry = world.get(f"/sandbox/v1/requests/{request['journal_id']}").json()
    assert entry["traceparent"] == found["traceparent"]
    assert (change["payout_id"], change["from"], change["to"]) == (payout["id"], "PROCESSING", "SUCCESS")
    assert (change["cause"], change["scenario"], change["version"]) == ("worker", "success", 3)
    assert {(e["account"], e["direction"], e["amount"]) for e in found["ledger_entries"]} == {
        ("LOCKED", "DEBIT", "250.00"),
        ("SETTLEMENT", "CREDIT", "250.00"),
    }
    assert found["endpoint"]["id"] == endpoint["id"]
    (attempt,) = found["attempts"]
    assert (attempt["status"], attempt["error_class"], attempt["manual"]) == (500, "HTTP_STATUS", False)
    following = found["next_attempt"]
    assert (following["reason"], [hold["reason"] for hold in following["holds"]]) == ("SCHEDULE", ["CLOCK_FROZEN"])
    assert "number 2 of 6 of the profile `fast`" in following["detail"]
    summary = "\n".join(found["summary"])
    for part in ("key-1", "POST /api/v1/payouts", payout["id"], "PAYOUT_SETTLE", "responded with 500", following["detail"]):
        assert part in summary


def test_it_says_why_the_next_attempt_is_due_when_it_is(world: World, receiver: Receiver) -> None:
    world.client.post("/sandbox/v1/clock/freeze", json=FROZEN)
    url = "/api/v1/webhook-endpoints"
    endpoint = world.post(url, {"url": receiver.url, "event_types": ["payout.created"]}).json()["id"]
    receiver.respond = lambda _: (503, {"retry-after": "120"}, b"")
    delivery_id = delivery_of(world, "payout.created", world.create_payout("0004")["id"])
    following = until_attempted(world, delivery_id, 1)["next_attempt"]
    assert (following["reason"], following["at"]) == ("RETRY_AFTER", "2031-01-01T00:02:00.000Z")
    assert "asked for 2 minutes with Retry-After" in following["detail"]

    world.client.patch(f"{url}/{endpoint}", json={"status": "DISABLED"}, headers={"X-IDEMPOTENCY-KEY": "d"})
    holds = explain(world, delivery_id)["next_attempt"]["holds"]
    assert [hold["reason"] for hold in holds] == ["ENDPOINT_DISABLED", "CLOCK_FROZEN"]
    paused = delivery_of(world, "payout.created", world.create_payout("0004")["id"])
    assert (explain(world, paused)["next_attempt"]["reason"], explain(world, paused)["attempts"]) == ("PAUSED", [])
    world.client.patch(f"{url}/{endpoint}", json={"status": "ENABLED"}, headers={"X-IDEMPOTENCY-KEY": "e"})

    fault = world.post("/sandbox/v1/faults", {"target": "webhooks", "kind": "delay", "milliseconds": 5000}).json()
    delayed = delivery_of(world, "payout.created", world.create_payout("0004")["id"])
    found = until_attempted(world, delayed, 1)
    assert (found["next_attempt"]["reason"], found["attempts"][0]["fault_id"]) == ("FAULT", fault["id"])
    world.client.delete(f"/sandbox/v1/faults/{fault['id']}")

    receiver.respond = lambda _: (200, {}, b"")
    assert world.post(f"/api/v1/webhook-deliveries/{delivery_id}/resend").status_code == 200
    found = until_attempted(world, delivery_id, 2)
    assert (found["next_attempt"]["reason"], found["attempts"][1]["manual"]) == ("SUCCEEDED", True)
    assert "someone asked for this attempt" in found["attempts"][1]["detail"]

    world.client.delete(f"{url}/{endpoint}", headers={"X-IDEMPOTENCY-KEY": "x"})
    found = explain(world, delayed)
    assert (found["endpoint"], found["next_attempt"]["reason"]) == (None, "ENDPOINT_DELETED")


def test_it_names_the_event_that_an_ordered_endpoint_must_receive_first(world: World, receiver: Receiver) -> None:
    receiver.respond = lambda _: (500, {}, b"")
    body = {"url": receiver.url, "ordered": True, "event_types": ["payout.created", "payout.succeeded"]}
    assert world.post("/api/v1/webhook-endpoints", body).status_code == 201
    payout_id = world.create_payout("0001")["id"]
    first = delivery_of(world, "payout.created", payout_id)
    until_attempted(world, first, 1)
    blocked = delivery_of(world, "payout.succeeded", payout_id)
    following = until(lambda: (n := explain(world, blocked)["next_attempt"])["reason"] == "EARLIER_EVENT" and n)
    assert explain(world, first)["change"]["event_id"] in following["detail"]
    assert "EARLIER_EVENT" in {hold["reason"] for hold in following["holds"]}


def test_it_explains_a_sample(world: World, receiver: Receiver) -> None:
    endpoint = world.post("/api/v1/webhook-endpoints", {"url": receiver.url}).json()["id"]
    sent = world.post(f"/api/v1/webhook-endpoints/{endpoint}/test", {"event_type": "payout.failed"}).json()
    found = until_attempted(world, sent["id"], 1)
    (admin,) = world.get("/sandbox/v1/keys").json()["data"]
    assert (found["request"]["api_key_id"], found["change"]["payout_id"]) == (admin["id"], None)
    assert any("was made as a sample" in sentence for sentence in found["summary"])


# Reasons and holds, without a sandbox.

AT = datetime(2031, 1, 1, tzinfo=UTC)
ENDPOINT = EndpointState("ENABLED", None, "standard", is_relayed=False, rate_limit=None, rate_free_at=None)


def last(**fields: Any) -> LastAttempt:
    values = {
        "number": 2, "at": AT, "status": 500, "duration": timedelta(seconds=1), "is_postponed": False, "fault_kind": None,
        "retry_after": None, "signed_at": AT,
    }  # fmt: skip
    return LastAttempt(**(values | fields))


def state(**fields: Any) -> DeliveryState:
    values = {
        "id": "d", "status": "PENDING", "scheduled": 2, "due": next_attempt("standard", 2, AT + timedelta(seconds=1), "d"),
        "changed_at": AT, "is_resent": False, "leased_until": None, "last": last(), "endpoint": ENDPOINT, "earlier_event": None,
    }  # fmt: skip
    return DeliveryState(**(values | fields))


@pytest.mark.parametrize(
    ("delivery", "reason"),
    [
        (state(), "SCHEDULE"),
        (state(last=None, due=AT, scheduled=0), "FIRST"),
        (state(is_resent=True, due=AT), "RESENT"),
        (state(last=None, scheduled=0, earlier_event="e (payout.created)"), "EARLIER_EVENT"),
        (state(is_resent=True, earlier_event="e (payout.created)"), "EARLIER_EVENT"),
        (state(is_resent=True), "CHANGED"),
        (state(earlier_event="e (payout.created)"), "SCHEDULE"),
        (state(status="SUCCEEDED", due=None), "SUCCEEDED"),
        (state(status="FAILED", due=None), "EXHAUSTED"),
        (state(status="FAILED", due=None, endpoint=replace(ENDPOINT, retry_profile="server_errors")), "EXHAUSTED"),
        (
            state(status="FAILED", due=None, endpoint=replace(ENDPOINT, retry_profile="server_errors"), last=last(status=404)),
            "FINAL_RESPONSE",
        ),
        (state(status="FAILED", due=None, endpoint=None), "ENDPOINT_DELETED"),
        (state(status="PAUSED", due=None), "PAUSED"),
        (state(last=last(is_postponed=True, fault_kind="delay")), "FAULT"),
        (state(last=last(retry_after="600"), due=AT + timedelta(seconds=601)), "RETRY_AFTER"),
        (state(last=last(retry_after="Wed, 01 Jan 2031 00:10:00 GMT"), due=AT + timedelta(seconds=600)), "RETRY_AFTER"),
        (state(last=last(retry_after="1")), "SCHEDULE"),
        (state(last=last(retry_after="soon")), "SCHEDULE"),
        (state(due=AT + timedelta(hours=1)), "CHANGED"),
        (state(scheduled=10), "CHANGED"),
    ],
)
def test_the_reason(delivery: DeliveryState, reason: str) -> None:
    assert explain_next(delivery)[0] == reason


@pytest.mark.parametrize(
    ("delivery", "clock", "reasons"),
    [
        (state(), RUNNING, ["CAPACITY"]),
        (state(), Clock(AT, timedelta()), ["CLOCK_FROZEN"]),
        (state(leased_until=AT + timedelta(days=2)), RUNNING, ["IN_PROGRESS"]),
        (state(earlier_event="e (payout.created)"), RUNNING, ["EARLIER_EVENT"]),
        (state(status="SUCCEEDED", due=None), RUNNING, []),
        (state(endpoint=EndpointState("ENABLED", None, "fast", True, 5, AT + timedelta(days=2))), RUNNING,
         ["RATE_LIMIT", "LISTENER"]),
        (state(due=AT + timedelta(days=2)), RUNNING, []),
    ],
)  # fmt: skip
def test_what_an_attempt_waits_for(delivery: DeliveryState, clock: Clock, reasons: list[str]) -> None:
    assert [reason for reason, _ in explain_holds(delivery, clock, AT + timedelta(days=1))] == reasons


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 seconds"), (1, "1 second"), (0.25, "0.2 seconds"), (300, "5 minutes"), (9000, "2 hours 30 minutes"),
     (86400, "24 hours"), (3661.5, "1 hour 1 minute 1.5 seconds")],
)  # fmt: skip
def test_durations_in_words(seconds: float, text: str) -> None:
    assert duration(timedelta(seconds=seconds)) == text
