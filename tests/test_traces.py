"""A payout's webhooks, timeline, journal entries and delivery log name one W3C trace: the one of the call that created it."""

import uuid
from typing import Any

import pytest

from sandbox.domain import trace
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def subscribe(world: World, receiver: Receiver, **fields: Any) -> None:
    assert world.post("/api/v1/webhook-endpoints", {"url": receiver.url, **fields}).status_code == 201


def sent_traces(receiver: Receiver, payout_id: str) -> list[str]:
    """Return the traces of a payout's deliveries."""
    return [r.headers["traceparent"] for r in list(receiver.received) if r.event["data"]["id"] == payout_id]


def timeline_traces(world: World, payout_id: str) -> list[str]:
    return [entry["traceparent"] for entry in world.get(f"/api/v1/payouts/{payout_id}/timeline").json()["data"]]


def journal_trace(world: World, request_id: str) -> str:
    (entry,) = until(lambda: world.get("/sandbox/v1/requests", request_id=request_id).json()["data"])
    found: str = entry["traceparent"]
    return found


def test_a_payout_keeps_the_trace_of_the_call_that_created_it(world: World, receiver: Receiver) -> None:
    subscribe(world, receiver)
    body = world.payout_body("0003", requires_approval=True)
    payout_id = world.post("/api/v1/payouts", body, headers={"traceparent": GIVEN, "x-request-id": "create"}).json()["id"]
    approved = world.client.patch(
        f"/api/v1/payouts/{payout_id}/approve",
        json={},
        headers={"X-IDEMPOTENCY-KEY": "a", "traceparent": OTHER, "x-request-id": "approve"},
    )
    assert approved.status_code == 200
    receiver.wait_for("payout.failed", payout_id=payout_id)
    world.post(f"/api/v1/payouts/{payout_id}/reinitiate")
    receiver.wait_for("payout.reinitiated", payout_id=payout_id)
    assert set(sent_traces(receiver, payout_id)) == {GIVEN}
    assert set(timeline_traces(world, payout_id)) == {GIVEN}
    assert journal_trace(world, "create") == GIVEN
    assert journal_trace(world, "approve") == OTHER
    events = world.get("/api/v1/events", payout_id=payout_id).json()["data"]
    (delivery,) = world.get("/api/v1/webhook-deliveries", event_id=events[-1]["id"]).json()["data"]
    path = f"/api/v1/webhook-deliveries/{delivery['id']}"
    (attempt,) = until(lambda: world.get(path).json()["attempts"])
    assert attempt["request"]["headers"]["traceparent"] == GIVEN


def test_a_call_without_traceparent_starts_a_trace(world: World, receiver: Receiver) -> None:
    subscribe(world, receiver)
    payouts = {}
    for _ in range(2):
        request_id = str(uuid.uuid4())
        created = world.post("/api/v1/payouts", world.payout_body("0003"), headers={"x-request-id": request_id}).json()
        payouts[created["id"]] = request_id
    for payout_id in payouts:
        receiver.wait_for("payout.failed", payout_id=payout_id)
        # The request id of later events differs, but the trace does not.
        world.post(f"/api/v1/payouts/{payout_id}/reinitiate")
        receiver.wait_for("payout.reinitiated", payout_id=payout_id)
    started = {payout_id: journal_trace(world, request_id) for payout_id, request_id in payouts.items()}
    assert len(set(started.values())) == len(payouts)
    for payout_id, traceparent in started.items():
        assert trace.given([(b"traceparent", traceparent.encode())]) == traceparent
        assert set(sent_traces(receiver, payout_id)) == {traceparent}
        assert set(timeline_traces(world, payout_id)) == {traceparent}


def test_every_payout_of_a_batch_belongs_to_the_batchs_trace(world: World, receiver: Receiver) -> None:
    subscribe(world, receiver, event_types=["payout.created"])
    body = {"payouts": [world.payout_body("0004"), world.payout_body("0004")]}
    results = world.post("/api/v1/payouts/batch", body, headers={"traceparent": GIVEN}).json()["results"]
    for result in results:
        receiver.wait_for("payout.created", payout_id=result["payout"]["id"])
        assert sent_traces(receiver, result["payout"]["id"]) == [GIVEN]


def test_a_bulk_credits_event_belongs_to_the_uploads_trace(world: World, receiver: Receiver) -> None:
    subscribe(world, receiver, event_types=["bulk_credit.*"])
    response = world.client.post(
        "/api/v1/wallet/bulk-credit",
        files={"file": ("credits.csv", b"uuid,amount\nnobody,1.00\n", "text/csv")},
        headers={"X-IDEMPOTENCY-KEY": "upload", "traceparent": GIVEN},
    )
    assert response.status_code == 202
    receiver.wait_for("bulk_credit.completed")
    assert {r.headers["traceparent"] for r in receiver.received} == {GIVEN}


def test_the_journal_names_the_trace_of_a_delivery_that_a_fault_hit(world: World, receiver: Receiver) -> None:
    subscribe(world, receiver, event_types=["payout.created"])
    assert world.post("/sandbox/v1/faults", {"target": "webhooks", "kind": "drop"}).status_code == 201
    world.post("/api/v1/payouts", world.payout_body("0004"), headers={"traceparent": GIVEN, "x-request-id": "dropped"})

    def traces() -> list[str]:
        found = world.get("/sandbox/v1/requests", request_id="dropped").json()["data"]
        return [entry["traceparent"] for entry in found] if any(entry["fault"] for entry in found) else []

    assert set(until(traces)) == {GIVEN}


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        [GIVEN, OTHER],
        [f"{GIVEN}-00"],
        [GIVEN.upper()],
        [GIVEN[:-1]],
        [f"{GIVEN}\n"],
        [GIVEN.replace("-", "_")],
        [f"ff{GIVEN[2:]}"],
        ["00-00000000000000000000000000000000-00f067aa0ba902b7-01"],
        ["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"],
    ],
)
def test_an_invalid_traceparent_is_ignored(values: list[str]) -> None:
    assert trace.given([(b"host", b"x"), *((b"traceparent", value.encode()) for value in values)]) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (GIVEN, GIVEN),
        (f"{GIVEN[:-2]}ff", f"{GIVEN[:-2]}ff"),
        (f"01{GIVEN[2:-2]}03", f"{GIVEN[:-2]}01"),
        (f"cc{GIVEN[2:]}-what-the-future-will-be-like", GIVEN),
    ],
)
def test_a_valid_traceparent_is_taken(value: str, expected: str) -> None:
    assert trace.given([(b"traceparent", value.encode())]) == expected


def test_a_derived_trace_is_valid_and_depends_on_the_request_id_alone() -> None:
    found = [trace.derive(request_id) for request_id in ("", "r", "r2", "~" * 128)]
    assert len({trace.trace_id(traceparent) for traceparent in found}) == len(found)
    assert all(trace.given([(b"traceparent", traceparent.encode())]) == traceparent for traceparent in found)
    assert found[1] == trace.derive("r")
