"""An undecided approval expires after the merchant's configured time, measured by the merchant's own clock."""

from typing import Any

import pytest

from sandbox.domain.scenario_engine import Match, Scenario, Step, has_stopped
from tests.harness.receiver import Receiver
from tests.harness.world import World
from tests.test_users import make_user, record, request_payout, summary

SETTINGS = "/sandbox/v1/settings"
DAY = 86_400


def set_expiry(world: World, seconds: float | None) -> None:
    response = world.client.patch(SETTINGS, json={"approvals_expire_after": seconds})
    assert response.status_code == 200, response.text
    assert response.json() == world.get(SETTINGS).json()
    assert response.json()["approvals_expire_after"] == seconds


def advance(world: World, seconds: int) -> dict[str, Any]:
    response: dict[str, Any] = world.client.post("/sandbox/v1/clock/advance", json={"seconds": seconds}).json()
    assert response["complete"], response
    return response


def test_an_undecided_request_is_rejected_and_its_money_released(world: World, receiver: Receiver) -> None:
    world.client.post("/sandbox/v1/clock/freeze")
    set_expiry(world, 3600)
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.rejected"]})
    before = world.balance()
    payout = world.create_payout(requires_approval=True)
    advance(world, 3599)
    assert world.payout(payout["id"])["status"] == "REQUESTED"
    assert world.balance() != before
    advance(world, 1)
    expired = world.payout(payout["id"])
    assert (expired["status"], expired["failure_code"]) == ("REJECTED", "APPROVAL_EXPIRED")
    assert "in time" in expired["failure_reason"]
    assert world.balance() == before
    timeline = world.get(f"/api/v1/payouts/{payout['id']}/timeline").json()["data"]
    assert [(entry["to"], entry["cause"]) for entry in timeline] == [("REQUESTED", "api"), ("REJECTED", "worker")]
    (event,) = receiver.wait_for("payout.rejected", payout_id=payout["id"])
    assert event["data"]["failure_code"] == "APPROVAL_EXPIRED"
    late = world.patch(f"/api/v1/payouts/{payout['id']}/approve")
    assert (late.status_code, late.json()["code"]) == (409, "INVALID_STATE")
    world.assert_clean()


def test_the_amount_of_a_users_expired_request_is_available_again(world: World) -> None:
    world.client.post("/sandbox/v1/clock/freeze")
    set_expiry(world, DAY)
    user_id = make_user(world)
    record(world, user_id, "EARNED", "100")
    request_payout(world, user_id, "70")
    assert summary(world, user_id)["available"] == "30.00"
    advance(world, DAY)
    assert (summary(world, user_id)["available"], summary(world, user_id)["payout_requested"]) == ("100.00", "0.00")
    world.assert_clean()


def test_an_undecided_review_fails(world: World) -> None:
    world.client.post("/sandbox/v1/clock/freeze")
    set_expiry(world, DAY)
    payout = world.create_payout(amount="100000.00")
    advance(world, DAY)
    assert world.path_of(payout["id"]) == ["PENDING", "PROCESSING", "IN_REVIEW", "FAILED"]
    assert world.payout(payout["id"])["failure_code"] == "APPROVAL_EXPIRED"
    world.assert_clean()


@pytest.mark.parametrize("amount", ["10.00", "100000.00"])
def test_a_payout_approved_in_time_continues(world: World, amount: str) -> None:
    world.client.post("/sandbox/v1/clock/freeze")
    set_expiry(world, 60)
    payout = world.create_payout("0013", amount=amount, requires_approval=amount == "10.00")
    advance(world, 59)
    assert world.patch(f"/api/v1/payouts/{payout['id']}/approve").status_code == 200
    advance(world, DAY)
    assert world.payout(payout["id"])["status"] == "SUCCESS"
    world.assert_clean()


def test_reviews_in_custom_scenarios_expire_unless_the_scenario_sets_a_delay(world: World) -> None:
    world.client.post("/sandbox/v1/clock/freeze")
    set_expiry(world, 60)
    steps = [{"to": "PROCESSING"}, {"to": "IN_REVIEW", "wait": True}, {"to": "SUCCESS"}]
    rule = {"name": "custom", "match": {"suffix": "7"}, "steps": steps}
    response = world.post("/sandbox/v1/scenarios", rule)
    assert response.status_code == 201, response.text
    decided, waiting = world.create_payout("0007"), world.create_payout("0007")
    assert world.patch(f"/api/v1/payouts/{decided['id']}/approve").status_code == 200
    advance(world, 60)
    assert world.payout(decided["id"])["status"] == "SUCCESS"
    assert world.path_of(waiting["id"])[-2:] == ["IN_REVIEW", "FAILED"]
    steps = [{"to": "PROCESSING"}, {"to": "IN_REVIEW"}, {"to": "FAILED", "after": 90, "failure_code": "LIMIT_EXCEEDED"}]
    timed = {"name": "timed", "match": {"suffix": "8"}, "steps": steps}
    assert world.post("/sandbox/v1/scenarios", timed).status_code == 201
    payout = world.create_payout("0008")
    advance(world, 89)
    assert world.payout(payout["id"])["status"] == "IN_REVIEW"
    advance(world, 1)
    assert world.payout(payout["id"])["failure_code"] == "LIMIT_EXCEEDED"
    world.assert_clean()


def test_approvals_never_expire_by_default_or_after_the_setting_is_removed(world: World) -> None:
    world.client.post("/sandbox/v1/clock/freeze")
    assert world.get(SETTINGS).json()["approvals_expire_after"] is None
    first = world.create_payout(requires_approval=True)
    set_expiry(world, 60)
    set_expiry(world, None)
    second = world.create_payout(amount="100000.00")
    advance(world, 365 * DAY)
    assert world.payout(first["id"])["status"] == "REQUESTED"
    assert world.payout(second["id"])["status"] == "IN_REVIEW"


def test_workers_expire_approvals_while_the_clock_runs(world: World) -> None:
    set_expiry(world, 1)
    payout = world.create_payout(requires_approval=True)
    assert world.wait_for(payout["id"], "REJECTED")["failure_code"] == "APPROVAL_EXPIRED"


def test_a_path_has_stopped_at_its_end_and_after_a_waiting_step() -> None:
    steps = (Step("PROCESSING"), Step("ON_HOLD", wait=True), Step("RETRY", probability=0), Step("PROCESSING"), Step("SUCCESS"))
    scenario = Scenario("custom", Match(), steps)
    assert [has_stopped(scenario, step, "p") for step in range(6)] == [False, False, True, True, False, True]
