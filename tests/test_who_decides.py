"""Only admin keys can approve or review, through any endpoint. The timeline records who did."""

import uuid
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


def create_waiting_payout(world: World, status: str) -> str:
    """Create a payout that waits for an approval or a review, and return its id."""
    if status == "REQUESTED":
        payout_id: str = world.create_payout("0004", requires_approval=True)["id"]
        return payout_id
    payout_id = world.create_payout("0004", amount="100000.00")["id"]
    world.wait_for(payout_id, "IN_REVIEW")
    return payout_id


def simulate(client: httpx.Client, payout_id: str, status: str, **headers: str) -> httpx.Response:
    return client.post(f"/sandbox/v1/payouts/{payout_id}/simulate", json={"status": status}, headers=headers)


def timeline(world: World, payout_id: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = world.get(f"/api/v1/payouts/{payout_id}/timeline").json()["data"]
    return entries


@pytest.mark.parametrize(("status", "decision", "failure_code"), DECISIONS)
def test_simulating_a_decision_needs_an_admin_key(
    world: World, member: httpx.Client, status: str, decision: str, failure_code: str | None
) -> None:
    payout_id, key = create_waiting_payout(world, status), str(uuid.uuid4())
    refused = simulate(member, payout_id, decision, **{"X-IDEMPOTENCY-KEY": key})
    assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
    assert world.payout(payout_id)["status"] == status
    # A 403 is not stored: the same request with the same idempotency key runs when it is sent with an admin key.
    decided = simulate(world.client, payout_id, decision, **{"X-IDEMPOTENCY-KEY": key})
    assert (decided.status_code, decided.json()["status"]) == (200, decision), decided.text
    assert decided.json()["failure_code"] == failure_code
    world.assert_clean()


@pytest.mark.parametrize("status", ["REQUESTED", "IN_REVIEW"])
def test_a_member_can_cancel_a_waiting_payout_and_simulate_other_transitions(
    world: World, member: httpx.Client, status: str
) -> None:
    assert simulate(member, create_waiting_payout(world, status), CANCELLED).json()["status"] == CANCELLED
    payout_id = world.create_payout("0004")["id"]
    assert [simulate(member, payout_id, to).status_code for to in (PROCESSING, "ON_HOLD", PROCESSING, "SUCCESS")] == [200] * 4


@pytest.mark.parametrize(
    ("status", "decision"),
    [("IN_REVIEW", to) for to in (PROCESSING, FAILED, CANCELLED, "SUCCESS")]
    + [("REQUESTED", to) for to in (PROCESSING, FAILED, CANCELLED, "SUCCESS")],
)
def test_an_ipn_cannot_change_a_payout_awaiting_a_decision(world: World, status: str, decision: str) -> None:
    payout_id = create_waiting_payout(world, status)
    refused = send(world, {"payout_id": payout_id, "status": decision})
    assert (refused.status_code, refused.json()["code"]) == (409, "INVALID_STATE"), refused.text
    assert "admin" in refused.json()["detail"]
    assert "CANCELLED" in refused.json()["detail"]
    assert world.payout(payout_id)["status"] == status
    world.assert_clean()


def test_the_timeline_names_the_key_and_the_request_of_each_change(world: World, member: httpx.Client) -> None:
    admin_id, member_id = (
        next(key["id"] for key in world.get("/sandbox/v1/keys").json()["data"] if key["role"] == role)
        for role in ("admin", "member")
    )

    def headers(name: str) -> dict[str, str]:
        return {"X-Request-Id": name, "X-IDEMPOTENCY-KEY": name}

    body = world.payout_body("0005", requires_approval=True)
    payout_id = member.post("/api/v1/payouts", json=body, headers=headers("request")).json()["id"]
    world.client.patch(f"/api/v1/payouts/{payout_id}/approve", headers=headers("approval")).raise_for_status()
    world.wait_for(payout_id, "ON_HOLD")
    simulate(member, payout_id, "FAILED", **headers("failure")).raise_for_status()
    member.post(f"/api/v1/payouts/{payout_id}/reinitiate", headers=headers("reinitiation")).raise_for_status()
    world.wait_for(payout_id, "ON_HOLD")
    ipn = send(world, {"payout_id": payout_id, "status": "SUCCESS"})
    assert [(row["to"], row["cause"], row["actor"], row["request_id"]) for row in timeline(world, payout_id)] == [
        ("REQUESTED", "api", member_id, "request"),
        ("PENDING", "api", admin_id, "approval"),
        ("PROCESSING", "worker", None, "approval"),
        ("ON_HOLD", "worker", None, "approval"),
        ("FAILED", "simulation", member_id, "failure"),
        ("PENDING", "api", member_id, "reinitiation"),
        ("PROCESSING", "worker", None, "reinitiation"),
        ("ON_HOLD", "worker", None, "reinitiation"),
        ("SUCCESS", "ipn", None, ipn.headers["x-request-id"]),
    ]
    assert list(timeline(world, payout_id)[0]) == [
        "at", "from", "to", "cause", "actor", "request_id", "scenario", "step", "ledger_transfer_id", "event_id",
        "traceparent",
    ]  # fmt: skip


def test_the_timelines_of_batch_and_user_payouts_name_the_requesting_key(world: World, member: httpx.Client) -> None:
    keys = world.get("/sandbox/v1/keys").json()["data"]
    member_id = next(key["id"] for key in keys if key["role"] == "member")
    batch = {"payouts": [world.payout_body("0004"), world.payout_body("0004")]}
    results = member.post("/api/v1/payouts/batch", json=batch, headers={"X-IDEMPOTENCY-KEY": "batch"}).json()["results"]
    user = {"name": "U", "destination": {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900004"}}
    user_id = world.post("/api/v1/users", user).json()["id"]
    world.post(f"/api/v1/users/{user_id}/transactions", {"type": "EARNED", "amount": "10.00"})
    requested = member.post(
        f"/api/v1/users/{user_id}/payout", json={"amount": "1"}, headers={"X-IDEMPOTENCY-KEY": "request"}
    ).json()
    for payout_id in (results[0]["payout"]["id"], results[1]["payout"]["id"], requested["id"]):
        assert timeline(world, payout_id)[0]["actor"] == member_id
