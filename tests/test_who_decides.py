"""Approvals and reviews are decided by admin keys alone, whichever way the decision comes; the timeline says whose it was."""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sandbox.domain.payout_states import CANCELLED, FAILED, PENDING, PROCESSING, REJECTED
from tests.harness.world import World
from tests.test_ipn import send

DECISIONS = [
    ("REQUESTED", PENDING, None),
    ("REQUESTED", REJECTED, None),
    ("IN_REVIEW", PROCESSING, None),
    ("IN_REVIEW", FAILED, "REVIEW_REJECTED"),
]


@pytest.fixture
def member(world: World) -> Iterator[httpx.Client]:
    """A client with a member's key of the same merchant."""
    key = world.client.post("/sandbox/v1/keys", json={"role": "member"}).json()["api_key"]
    with httpx.Client(base_url=world.stack.api_url, headers={"X-API-KEY": key}, timeout=60) as client:
        yield client


def waiting(world: World, status: str) -> str:
    """A payout that waits for an approval or a review."""
    if status == "REQUESTED":
        payout_id: str = world.create_payout("0004", requires_approval=True)["id"]
        return payout_id
    payout_id = world.create_payout("0004", amount="100000.00")["id"]
    world.wait_for(payout_id, "IN_REVIEW")
    return payout_id


def simulate(client: httpx.Client, payout_id: str, status: str, **headers: str) -> httpx.Response:
    return client.post(f"/sandbox/v1/payouts/{payout_id}/simulate", json={"status": status}, headers=headers)


def timeline(world: World, payout_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.get(f"/api/v1/payouts/{payout_id}/timeline").json()["data"]
    return found


@pytest.mark.parametrize(("status", "decision", "failure_code"), DECISIONS)
def test_a_simulation_that_decides_needs_an_admin(
    world: World, member: httpx.Client, status: str, decision: str, failure_code: str | None
) -> None:
    payout_id, key = waiting(world, status), str(uuid.uuid4())
    refused = simulate(member, payout_id, decision, **{"X-IDEMPOTENCY-KEY": key})
    assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
    assert world.payout(payout_id)["status"] == status
    # A 403 is not kept: the same request under the same key is executed when an admin's key sends it.
    decided = simulate(world.client, payout_id, decision, **{"X-IDEMPOTENCY-KEY": key})
    assert (decided.status_code, decided.json()["status"]) == (200, decision), decided.text
    assert decided.json()["failure_code"] == failure_code
    world.assert_clean()


@pytest.mark.parametrize("status", ["REQUESTED", "IN_REVIEW"])
def test_a_member_may_still_cancel_what_waits_and_simulate_the_rest(world: World, member: httpx.Client, status: str) -> None:
    assert simulate(member, waiting(world, status), CANCELLED).json()["status"] == CANCELLED
    payout_id = world.create_payout("0004")["id"]
    assert [simulate(member, payout_id, to).status_code for to in (PROCESSING, "ON_HOLD", PROCESSING, "SUCCESS")] == [200] * 4


@pytest.mark.parametrize(
    ("status", "decision"),
    [("IN_REVIEW", to) for to in (PROCESSING, FAILED, CANCELLED, "SUCCESS")]
    + [("REQUESTED", to) for to in (PROCESSING, FAILED, CANCELLED, "SUCCESS")],
)
def test_a_bank_decides_nothing_that_waits_for_approval_or_review(world: World, status: str, decision: str) -> None:
    payout_id = waiting(world, status)
    refused = send(world, {"payout_id": payout_id, "status": decision})
    assert (refused.status_code, refused.json()["code"]) == (409, "INVALID_STATE"), refused.text
    assert "admin" in refused.json()["detail"]
    assert "CANCELLED" in refused.json()["detail"]
    assert world.payout(payout_id)["status"] == status
    world.assert_clean()


def test_a_bank_that_tells_the_state_it_is_in_already_is_answered_200(world: World) -> None:
    payout_id = waiting(world, "IN_REVIEW")
    before = timeline(world, payout_id)
    assert send(world, {"payout_id": payout_id, "status": "IN_REVIEW"}).json()["status"] == "IN_REVIEW"
    assert timeline(world, payout_id) == before


def test_the_timeline_names_the_key_and_the_request_of_each_change(world: World, member: httpx.Client) -> None:
    admin_id, member_id = (
        next(key["id"] for key in world.get("/sandbox/v1/keys").json()["data"] if key["role"] == role)
        for role in ("admin", "member")
    )

    def headers(name: str) -> dict[str, str]:
        return {"X-Request-Id": name, "X-IDEMPOTENCY-KEY": name}

    body = world.payout_body("0005", requires_approval=True)
    payout_id = member.post("/api/v1/payouts", json=body, headers=headers("asks")).json()["id"]
    world.client.patch(f"/api/v1/payouts/{payout_id}/approve", headers=headers("approves")).raise_for_status()
    world.wait_for(payout_id, "ON_HOLD")
    simulate(member, payout_id, "FAILED", **headers("fails")).raise_for_status()
    member.post(f"/api/v1/payouts/{payout_id}/reinitiate", headers=headers("retries")).raise_for_status()
    world.wait_for(payout_id, "ON_HOLD")
    called = send(world, {"payout_id": payout_id, "status": "SUCCESS"})
    assert [(row["to"], row["cause"], row["actor"], row["request_id"]) for row in timeline(world, payout_id)] == [
        ("REQUESTED", "api", member_id, "asks"),
        ("PENDING", "api", admin_id, "approves"),
        ("PROCESSING", "worker", None, "approves"),
        ("ON_HOLD", "worker", None, "approves"),
        ("FAILED", "simulation", member_id, "fails"),
        ("PENDING", "api", member_id, "retries"),
        ("PROCESSING", "worker", None, "retries"),
        ("ON_HOLD", "worker", None, "retries"),
        ("SUCCESS", "ipn", None, called.headers["x-request-id"]),
    ]
    assert list(timeline(world, payout_id)[0]) == [
        "at", "from", "to", "cause", "actor", "request_id", "scenario", "step", "ledger_transfer_id", "event_id",
    ]  # fmt: skip


def test_each_payout_of_a_batch_and_of_a_user_names_who_asked(world: World, member: httpx.Client) -> None:
    keys = world.get("/sandbox/v1/keys").json()["data"]
    member_id = next(key["id"] for key in keys if key["role"] == "member")
    batch = {"payouts": [world.payout_body("0004"), world.payout_body("0004")]}
    response = member.post("/api/v1/payouts/batch", json=batch, headers={"X-IDEMPOTENCY-KEY": "batch"}).json()["results"]
    user = {"name": "U", "destination": {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900004"}}
    user_id = world.post("/api/v1/users", user).json()["id"]
    world.post(f"/api/v1/users/{user_id}/transactions", {"type": "EARNED", "amount": "10.00"})
    asked = member.post(f"/api/v1/users/{user_id}/payout", json={"amount": "1"}, headers={"X-IDEMPOTENCY-KEY": "asks"}).json()
    for payout_id in (response[0]["payout"]["id"], response[1]["payout"]["id"], asked["id"]):
        assert timeline(world, payout_id)[0]["actor"] == member_id


def test_a_snapshot_brings_back_who_acted(world: World) -> None:
    payout_id = world.create_payout("0004")["id"]
    before = timeline(world, payout_id)
    snapshot = world.client.post("/sandbox/v1/snapshots", json={"name": "before"}).json()["id"]
    world.client.post("/sandbox/v1/reset").raise_for_status()
    world.client.post(f"/sandbox/v1/snapshots/{snapshot}/restore").raise_for_status()
    assert timeline(world, payout_id) == before
    assert before[0]["actor"] is not None
