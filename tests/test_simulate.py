"""A simulation makes any legal transition, with its money, timeline and webhooks, and refuses all others."""

import uuid
from typing import Any

import httpx
import pytest

from sandbox.domain.payout_states import STATUSES
from tests.harness.receiver import Receiver
from tests.harness.world import World
from tests.test_ipn import send


def simulate(world: World, payout_id: str, status: str, **fields: Any) -> httpx.Response:
    return world.client.post(f"/sandbox/v1/payouts/{payout_id}/simulate", json={"status": status, **fields})


def test_a_simulated_success_and_return_move_money_and_create_timeline_entries_and_webhooks(
    world: World, receiver: Receiver
) -> None:
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url})
    payout = world.create_payout("0004")
    response = simulate(world, payout["id"], "SUCCESS")
    assert (response.status_code, response.json()["status"]) == (200, "SUCCESS"), response.text
    assert response.json()["psp_reference"]
    assert world.balance() == ("999900.00", "0.00")
    returned = simulate(world, payout["id"], "RETURNED", failure_code="ACCOUNT_CLOSED").json()
    assert (returned["status"], returned["failure_code"]) == ("RETURNED", "ACCOUNT_CLOSED")
    assert world.balance() == ("1000000.00", "0.00")
    timeline = world.get(f"/api/v1/payouts/{payout['id']}/timeline").json()["data"]
    assert [(entry["to"], entry["cause"]) for entry in timeline] == [
        ("PENDING", "api"), ("SUCCESS", "simulation"), ("RETURNED", "simulation"),
    ]  # fmt: skip
    receiver.wait_for("payout.created", "payout.succeeded", "payout.returned", payout_id=payout["id"])
    world.assert_clean()


def test_a_rejection_has_a_failure_code_only_if_one_was_given(world: World) -> None:
    with_code, without_code, rejected_id = (world.create_payout(requires_approval=True)["id"] for _ in range(3))
    assert simulate(world, with_code, "REJECTED", failure_code="LIMIT_EXCEEDED").json()["failure_code"] == "LIMIT_EXCEEDED"
    assert simulate(world, without_code, "REJECTED").json()["failure_code"] is None
    rejected = world.patch(f"/api/v1/payouts/{rejected_id}/reject").json()
    assert (rejected["status"], rejected["failure_code"]) == ("REJECTED", None)


@pytest.mark.parametrize("status", [status for status in STATUSES if status not in ("FAILED", "RETURNED", "REJECTED")])
def test_a_failure_code_is_refused_for_any_status_that_is_not_a_failure(world: World, status: str) -> None:
    payout = world.create_payout("0004")
    refused = simulate(world, payout["id"], status, failure_code="BANK_REJECTED")
    assert (refused.status_code, [error["field"] for error in refused.json()["errors"]]) == (400, ["failure_code"])
    body = {"payout_id": payout["id"], "status": status, "failure_code": "BANK_REJECTED", "failure_reason": "why"}
    refused_ipn = send(world, body)
    assert refused_ipn.status_code == 400
    assert {error["field"] for error in refused_ipn.json()["errors"]} == {"failure_code", "failure_reason"}
    assert world.path_of(payout["id"]) == ["PENDING"]


def test_an_unknown_failure_code_is_accepted_unchanged(world: World) -> None:
    failed = simulate(world, world.create_payout("0004")["id"], "FAILED", failure_code="OUR_OWN_CODE").json()
    assert (failed["failure_code"], failed["failure_reason"]) == ("OUR_OWN_CODE", None)


def test_invalid_simulations_are_refused(world: World) -> None:
    payout = world.create_payout("0004")
    assert simulate(world, payout["id"], "PAID").json()["code"] == "VALIDATION_ERROR"
    assert simulate(world, payout["id"], "FAILED", failure_code="no code").json()["code"] == "VALIDATION_ERROR"
    assert simulate(world, payout["id"], "FAILED", reason="x").json()["code"] == "VALIDATION_ERROR"
    assert simulate(world, str(uuid.uuid4()), "FAILED").status_code == 404
    assert simulate(world, "no-id", "FAILED").status_code == 404
    with World.create(world.stack) as other:
        assert simulate(other, payout["id"], "FAILED").status_code == 404
    assert world.path_of(payout["id"]) == ["PENDING"]
