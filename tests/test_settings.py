"""A merchant's settings are shown and changed through one resource. Reset and restore cover all but the rate limit."""

from typing import Any

import httpx
import pytest

from tests.harness.world import Stack, World

PATH = "/sandbox/v1/settings"
SCENARIOS = "/sandbox/v1/scenarios"
DEFAULTS = {
    "default_scenario": "SUCCESS",
    "review_threshold": "100000.00",
    "rate_limit": None,
    "approvals_expire_after": None,
}


def change(world: World, **fields: Any) -> dict[str, Any]:
    response = world.patch(PATH, fields)
    assert response.status_code == 200, response.text
    settings: dict[str, Any] = response.json()
    assert settings == world.get(PATH).json()
    return settings


def test_settings_are_shown_and_changed_independently(world: World) -> None:
    assert world.get(PATH).json() == DEFAULTS
    assert list(world.get(PATH).json()) == list(DEFAULTS)
    expected = dict(DEFAULTS)
    for fields in (
        {"default_scenario": "PENDING"}, {"review_threshold": 50.5}, {"rate_limit": 1000}, {"approvals_expire_after": 60},
        {}, {"rate_limit": None, "review_threshold": None}, {"approvals_expire_after": None, "review_threshold": "100000.00"},
        {"default_scenario": "SUCCESS"},
    ):  # fmt: skip
        expected |= fields | ({"review_threshold": "50.50"} if fields.get("review_threshold") == 50.5 else {})
        assert change(world, **fields) == expected
    assert expected == DEFAULTS


@pytest.mark.parametrize(
    ("fields", "invalid_field"),
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
def test_an_invalid_setting_is_refused_and_changes_nothing(world: World, fields: dict[str, Any], invalid_field: str) -> None:
    response = world.patch(PATH, {**fields})
    assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR")
    assert response.json()["errors"][0]["field"] == invalid_field
    assert world.get(PATH).json() == DEFAULTS


def test_a_member_key_can_change_settings(member: httpx.Client) -> None:
    assert member.patch(PATH, json={"rate_limit": 99}).status_code == 200


@pytest.mark.parametrize("fields", [{"review_threshold": None}, {"approvals_expire_after": 1, "rate_limit": 99}], ids=str)
def test_a_member_cannot_change_what_decides_which_payouts_wait_for_an_admin(
    world: World, member: httpx.Client, fields: dict[str, Any]
) -> None:
    refused = member.patch(PATH, json=fields, headers={"X-IDEMPOTENCY-KEY": "guards"})
    assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
    assert f"`{next(iter(fields))}`" in refused.json()["detail"]
    assert world.get(PATH).json() == DEFAULTS
    # Not stored: an admin may send the same request with the same idempotency key.
    assert world.client.patch(PATH, json=fields, headers={"X-IDEMPOTENCY-KEY": "guards"}).status_code == 200


def test_the_review_threshold_applies_to_payouts_explanations_and_the_list_of_scenarios(world: World) -> None:
    def scenario(amount: str) -> str:
        body = world.payout_body("0003", amount=amount)
        explained = world.post(f"{SCENARIOS}/explain", body).json()["scenario"]
        created: str = world.create_payout("0003", amount=amount)["scenario"]
        assert created == explained
        return created

    def listed() -> list[dict[str, Any]]:
        return [item["match"] for item in world.get(SCENARIOS).json()["data"] if item["name"] == "in_review"]

    assert (scenario("99999.99"), scenario("100000.00"), listed()) == ("failed", "in_review", [{"amount_from": "100000.00"}])
    change(world, review_threshold="50.00")
    assert (scenario("49.99"), scenario("50.00"), listed()) == ("failed", "in_review", [{"amount_from": "50.00"}])
    change(world, review_threshold=None)
    assert (scenario("100000.00"), listed()) == ("failed", [])
    named = world.post("/api/v1/payouts", world.payout_body("0003"), headers={"X-Sandbox-Scenario": "in_review"})
    assert named.json()["scenario"] == "in_review"


def test_a_reset_restores_the_defaults_and_a_restore_the_saved_settings_except_the_rate_limit(stack: Stack) -> None:
    saved = {
        "default_scenario": "FAILED", "review_threshold": "7.00", "rate_limit": 5000, "approvals_expire_after": 60,
    }  # fmt: skip
    with World.create(stack) as world:
        change(world, **saved)
        snapshot = world.client.post("/sandbox/v1/snapshots").json()["id"]
        change(world, review_threshold=None)
        snapshot_without_review = world.client.post("/sandbox/v1/snapshots").json()["id"]
        assert world.client.post("/sandbox/v1/reset").status_code == 200
        assert world.get(PATH).json() == DEFAULTS | {"rate_limit": 5000}
        change(world, rate_limit=4000)
        for id_, threshold in ((snapshot, "7.00"), (snapshot_without_review, None)):
            assert world.client.post(f"/sandbox/v1/snapshots/{id_}/restore").status_code == 200
            assert world.get(PATH).json() == saved | {"rate_limit": 4000, "review_threshold": threshold}
