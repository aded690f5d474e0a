"""A merchant's settings: one place for all, changed one by one, and part of its world as far as they shape it."""

from typing import Any

import pytest

from tests.harness.world import Stack, World

PATH = "/sandbox/v1/settings"
SCENARIOS = "/sandbox/v1/scenarios"
AT_FIRST = {
    "default_scenario": "SUCCESS",
    "review_threshold": "100000.00",
    "rate_limit": None,
    "approvals_expire_after": None,
}


def change(world: World, **members: Any) -> dict[str, Any]:
    answer = world.patch(PATH, members)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found == world.get(PATH).json()
    return found


def test_they_are_shown_and_changed_one_by_one(world: World) -> None:
    assert world.get(PATH).json() == AT_FIRST
    assert list(world.get(PATH).json()) == list(AT_FIRST)
    expected = dict(AT_FIRST)
    for members in (
        {"default_scenario": "PENDING"}, {"review_threshold": 50.5}, {"rate_limit": 1000}, {"approvals_expire_after": 60},
        {}, {"rate_limit": None, "review_threshold": None}, {"approvals_expire_after": None, "review_threshold": "100000.00"},
        {"default_scenario": "SUCCESS"},
    ):  # fmt: skip
        expected |= members | ({"review_threshold": "50.50"} if members.get("review_threshold") == 50.5 else {})
        assert change(world, **members) == expected
    assert expected == AT_FIRST


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"default_scenario": "success"}, "default_scenario"), ({"default_scenario": "ON_HOLD"}, "default_scenario"),
        ({"default_scenario": None}, "default_scenario"),
        ({"review_threshold": 0}, "review_threshold"), ({"review_threshold": "1.001"}, "review_threshold"),
        ({"review_threshold": True}, "review_threshold"), ({"review_threshold": ""}, "review_threshold"),
        ({"rate_limit": 0}, "rate_limit"), ({"rate_limit": 1.5}, "rate_limit"), ({"rate_limit": "5"}, "rate_limit"),
        ({"approvals_expire_after": 0}, "approvals_expire_after"),
        ({"approvals_expire_after": 31_536_001}, "approvals_expire_after"),
        ({"requests_per_minute": 5}, "requests_per_minute"),
    ],
)  # fmt: skip
def test_what_is_no_setting_is_refused_and_changes_nothing(world: World, members: dict[str, Any], field: str) -> None:
    answer = world.patch(PATH, {**members})
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert answer.json()["errors"][0]["field"] == field
    assert world.get(PATH).json() == AT_FIRST


def test_a_member_key_may_change_them_and_a_key_is_honoured(world: World) -> None:
    member = world.client.post("/sandbox/v1/keys", json={"role": "member"}).json()["api_key"]
    headers = {"X-API-KEY": member, "X-IDEMPOTENCY-KEY": "settings"}
    first, again = (world.client.patch(PATH, json={"rate_limit": 99}, headers=headers) for _ in range(2))
    assert (first.status_code, again.content, again.headers["idempotent-replayed"]) == (200, first.content, "true")
    refused = world.client.patch(PATH, json={"rate_limit": 98}, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_the_review_threshold_chooses_explains_and_is_listed(world: World) -> None:
    def scenario(amount: str) -> str:
        body = world.payout_body("0003", amount=amount)
        explained = world.post(f"{SCENARIOS}/explain", body).json()["scenario"]
        created: str = world.create_payout("0003", amount=amount)["scenario"]
        assert created == explained
        return created

    def listed() -> list[dict[str, Any]]:
        return [found["match"] for found in world.get(SCENARIOS).json()["data"] if found["name"] == "in_review"]

    assert (scenario("99999.99"), scenario("100000.00"), listed()) == ("failed", "in_review", [{"amount_from": "100000.00"}])
    change(world, review_threshold="50.00")
    assert (scenario("49.99"), scenario("50.00"), listed()) == ("failed", "in_review", [{"amount_from": "50.00"}])
    change(world, review_threshold=None)
    assert (scenario("100000.00"), listed()) == ("failed", [])
    named = world.post("/api/v1/payouts", world.payout_body("0003"), headers={"X-Sandbox-Scenario": "in_review"})
    assert named.json()["scenario"] == "in_review"


def test_a_reset_brings_them_back_and_a_restore_what_they_were_but_for_the_rate_limit(stack: Stack) -> None:
    mine = {
        "default_scenario": "FAILED", "review_threshold": "7.00", "rate_limit": 5000, "approvals_expire_after": 60,
    }  # fmt: skip
    with World.create(stack) as world:
        change(world, **mine)
        snapshot = world.client.post("/sandbox/v1/snapshots").json()["id"]
        change(world, review_threshold=None)
        off = world.client.post("/sandbox/v1/snapshots").json()["id"]
        assert world.client.post("/sandbox/v1/reset").status_code == 200
        assert world.get(PATH).json() == AT_FIRST | {"rate_limit": 5000}
        change(world, rate_limit=4000)
        for id_, threshold in ((snapshot, "7.00"), (off, None)):
            assert world.client.post(f"/sandbox/v1/snapshots/{id_}/restore").status_code == 200
            assert world.get(PATH).json() == mine | {"rate_limit": 4000, "review_threshold": threshold}


@pytest.mark.parametrize("path", ["rate-limit", "approvals", "scenarios/default"])
def test_what_they_replaced_is_gone(world: World, path: str) -> None:
    assert world.client.put(f"/sandbox/v1/{path}", json={}).status_code in (400, 404, 405)
    assert world.client.get(f"/sandbox/v1/{path}").status_code == 404
