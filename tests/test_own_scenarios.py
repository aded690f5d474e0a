"""A merchant's own scenarios: which payouts they match, which path they take, and which rules are refused."""

import uuid
from collections import Counter
from typing import Any

import pytest

from sandbox.payouts.scenarios.builtin import load_catalogue
from sandbox.payouts.scenarios.rules import MAX_RULES
from tests.harness.waiting import until
from tests.harness.world import World
from tests.test_ipn import send

CATALOGUE = load_catalogue()
RULES = "/sandbox/v1/scenarios"
PAID = [{"to": "PROCESSING"}, {"to": "SUCCESS"}]


def rule(world: World, name: str = "own", steps: list[dict[str, Any]] | None = None, **fields: Any) -> dict[str, Any]:
    response = world.post(
        RULES, {"name": name, "match": {"suffix": "7"}, "steps": PAID, **fields} | ({"steps": steps} if steps else {})
    )
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    assert response.headers["location"] == f"{RULES}/{created['id']}"
    assert world.get(response.headers["location"]).json() == created
    return created


# ---- matching


@pytest.mark.parametrize(
    ("match", "hit", "miss"),
    [
        ({"suffix": "77"}, {"account_number": "12345678900077"}, {"account_number": "12345678900078"}),
        ({"suffix": "5678900004"}, {"account_number": "12345678900004"}, {"account_number": "12345678910004"}),
        ({"account_number": "12345678904321"}, {"account_number": "12345678904321"}, {"account_number": "92345678904321"}),
        ({"bank_code": "HABIBBANK"}, {"bank_code": "HBL"}, {"bank_code": "MCB"}),
        ({"wallet_code": "JAZZCASH"}, {"dest_type": "WALLET", "bank_code": None, "wallet_code": "JAZZCASH"}, {}),
        ({"amount_from": "500"}, {"amount": "500.00"}, {"amount": "499.99"}),
        ({"amount_to": 20}, {"amount": "20.00"}, {"amount": "20.01"}),
        ({"amount_from": 10, "amount_to": "20.00"}, {"amount": "10.00"}, {"amount": "9.99"}),
        ({"metadata": {"test": "a"}}, {"metadata": {"test": "a", "more": "b"}}, {"metadata": {"test": "b"}}),
        ({"suffix": "7", "bank_code": "HBL"}, {"account_number": "12345678900007"}, {"account_number": "12345678910006"}),
    ],
)
def test_a_rule_applies_only_to_payouts_that_it_matches(
    world: World, match: dict[str, Any], hit: dict[str, Any], miss: dict[str, Any]
) -> None:
    created = rule(world, match=match)
    for fields, expected in ((hit, "own"), (miss, None)):
        explained = world.post(f"{RULES}/explain", world.payout_body("4321", **fields)).json()
        assert (explained["scenario"] == "own") == (expected == "own")
        assert world.create_payout("4321", **fields)["scenario"] == explained["scenario"]
    assert created["match"].keys() == match.keys()


def test_own_rules_come_first_by_position_then_amount_suffix_and_default(world: World) -> None:
    rule(world, "second", match={"suffix": "0003"})
    first = rule(world, "first", match={"suffix": "3"}, position=1)
    names = [scenario["name"] for scenario in world.get(RULES).json()["data"]]
    assert names[:3] == ["first", "second", "in_review"]
    assert names[3:] == [s.name for s in CATALOGUE.scenarios if s.match.suffix] + ["success"]
    assert world.create_payout("0003")["scenario"] == "first"
    assert world.create_payout("0003", amount="100000.00")["scenario"] == "first"
    moved = world.client.put(f"{RULES}/{first['id']}", json={**_rule_body(first), "position": 99}).json()
    assert (moved["position"], world.create_payout("0003")["scenario"]) == (2, "second")
    assert world.client.delete(f"{RULES}/{first['id']}").status_code == 204
    assert world.get(f"{RULES}/{first['id']}").json()["code"] == "NOT_FOUND"
    assert [(r["name"], r["position"]) for r in world.get(RULES).json()["data"] if r["source"] == "own"] == [("second", 1)]


def _rule_body(created: dict[str, Any]) -> dict[str, Any]:
    steps = [{name: value for name, value in step.items() if value is not None} for step in created["steps"]]
    return {"name": created["name"], "match": created["match"], "steps": steps}


def test_the_default_scenario_can_be_changed(world: World) -> None:
    for name in ("failed", "pending", "success"):
        assert world.patch("/sandbox/v1/settings", {"default_scenario": name.upper()}).status_code == 200
        assert world.create_payout("9999")["scenario"] == name
        last = world.get(RULES).json()["data"][-1]
        assert (last["name"], last["match"]) == (name, {})


def test_the_scenario_header_names_a_scenario_or_matches_a_rule(world: World) -> None:
    rule(world, "named", match={"suffix": "1111"})
    rule(world, "by_header", match={"scenario_header": "on_hold", "suffix": "2222"})

    def scenario(header: str, suffix: str = "0001") -> Any:
        response = world.post("/api/v1/payouts", world.payout_body(suffix), headers={"X-Sandbox-Scenario": header})
        return response.json().get("scenario") or (response.status_code, response.json()["errors"][0]["field"])

    assert [scenario("failed"), scenario("named"), scenario("on_hold"), scenario("on_hold", "2222")] == [
        "failed", "named", "on_hold", "by_header",
    ]  # fmt: skip
    assert scenario("unheard_of") == scenario("") == (400, "X-Sandbox-Scenario")
    batch = {"payouts": [world.payout_body(), world.payout_body()]}
    results = world.post("/api/v1/payouts/batch", batch, headers={"X-Sandbox-Scenario": "failed"}).json()["results"]
    assert [result["payout"]["scenario"] for result in results] == ["failed", "failed"]
    refused = world.post("/api/v1/payouts/batch", batch, headers={"X-Sandbox-Scenario": "unheard_of"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "X-Sandbox-Scenario")


def test_the_scenario_header_still_applies_after_an_approval_and_a_reinitiation(world: World) -> None:
    body = world.payout_body("0001", requires_approval=True)
    payout = world.post("/api/v1/payouts", body, headers={"X-Sandbox-Scenario": "limit_exceeded"}).json()
    world.patch(f"/api/v1/payouts/{payout['id']}/approve")
    assert world.wait_for(payout["id"], "FAILED")["failure_code"] == "LIMIT_EXCEEDED"
    world.post(f"/api/v1/payouts/{payout['id']}/reinitiate")
    until(lambda: world.path_of(payout["id"]).count("FAILED") == 2)
    world.assert_clean()


# ---- paths


def test_a_payout_follows_the_steps_with_their_waits_reference_and_code(world: World) -> None:
    steps = [
        {"to": "PROCESSING"},
        {"to": "RETRY", "after": 1800.5},
        {"to": "PROCESSING", "after": 3600},
        {"to": "SUCCESS", "psp_reference": "BANK-1"},
        {"to": "RETURNED", "after": 86400, "failure_code": "MY_OWN_CODE"},
    ]
    rule(world, "long", steps)
    payout = world.create_payout("0007")
    for status, seconds in (("PROCESSING", 1800.5), ("RETRY", 3600), ("SUCCESS", 86400)):
        found = world.wait_for(payout["id"], status)
        world.shift_clock(seconds)
    assert found["psp_reference"] == "BANK-1"
    assert world.wait_for(payout["id"], "RETURNED")["failure_code"] == "MY_OWN_CODE"
    assert world.path_of(payout["id"]) == ["PENDING", "PROCESSING", "RETRY", "PROCESSING", "SUCCESS", "RETURNED"]
    world.assert_clean()


def test_a_started_payout_keeps_its_path_when_its_rule_is_replaced_or_deleted(world: World) -> None:
    on_hold = [{"to": "PROCESSING"}, {"to": "ON_HOLD", "wait": True}, {"to": "FAILED", "failure_code": "ORIGINAL_RULE"}]
    created = rule(world, "with_hold", on_hold)
    payouts = [world.create_payout("0007")["id"] for _ in range(2)]
    for payout_id in payouts:
        world.wait_for(payout_id, "ON_HOLD")
    assert world.client.put(f"{RULES}/{created['id']}", json={**_rule_body(created), "steps": PAID}).status_code == 200
    release(world, payouts[0])
    assert world.wait_for(payouts[0], "FAILED")["failure_code"] == "ORIGINAL_RULE"
    assert world.client.delete(f"{RULES}/{created['id']}").status_code == 204
    release(world, payouts[1])
    assert world.wait_for(payouts[1], "FAILED")["failure_code"] == "ORIGINAL_RULE"
    # A reinitiated payout starts again, with the rules that exist now.
    world.post(f"/api/v1/payouts/{payouts[1]}/reinitiate")
    until(lambda: world.payout(payouts[1])["failure_code"] == "ACCOUNT_CLOSED")
    assert world.payout(payouts[1])["scenario"] == "account_closed"
    world.assert_clean()


def release(world: World, payout_id: str) -> None:
    response = send(world, {"payout_id": payout_id, "status": "PROCESSING"})
    assert response.status_code == 200, response.text


def test_an_approved_review_continues_with_its_rules_steps_or_else_by_suffix(world: World) -> None:
    review = [{"to": "PROCESSING"}, {"to": "IN_REVIEW", "wait": True}]
    rule(world, "review_then_fail", [*review, {"to": "FAILED", "failure_code": "OWN"}], match={"suffix": "11"})
    rule(world, "review", review, match={"suffix": "0003"})
    own, suffix = world.create_payout("0011")["id"], world.create_payout("0003")["id"]
    for payout_id in (own, suffix):
        world.wait_for(payout_id, "IN_REVIEW")
        assert world.patch(f"/api/v1/payouts/{payout_id}/approve").status_code == 200
    assert world.wait_for(own, "FAILED")["failure_code"] == "OWN"
    assert world.wait_for(suffix, "FAILED")["failure_code"] == "BANK_REJECTED"


def test_with_probability_one_half_some_payouts_fail_and_the_others_succeed(world: World) -> None:
    steps = [{"to": "PROCESSING"}, {"to": "FAILED", "after": 2, "probability": 0.5}, {"to": "SUCCESS", "after": 3}]
    rule(world, "half", steps)
    steps_explained = world.post(f"{RULES}/explain", world.payout_body("0007")).json()["steps"]
    assert [(s["to"], s["at"], s["probability"], s["overall_probability"], s["money"]) for s in steps_explained] == [
        ("PENDING", 0, 1, 1, "available → locked"),
        ("PROCESSING", 0, 1, 1, None),
        ("FAILED", 2, 0.5, 0.5, "locked → available"),
        ("SUCCESS", 3, 1, 0.5, "locked → settlement"),
    ]
    world.client.post("/sandbox/v1/clock/freeze")
    batch = {"payouts": [world.payout_body("0007", amount="1.00") for _ in range(64)]}
    payout_ids = [result["payout"]["id"] for result in world.post("/api/v1/payouts/batch", batch).json()["results"]]
    world.client.post("/sandbox/v1/clock/advance", json={"seconds": 10})
    paths = Counter(tuple(world.path_of(payout_id)) for payout_id in payout_ids)
    assert set(paths) == {("PENDING", "PROCESSING", "FAILED"), ("PENDING", "PROCESSING", "SUCCESS")}
    assert all(10 < count < 54 for count in paths.values())
    world.assert_clean()


def test_explain_can_try_a_rule_before_it_is_created(world: World) -> None:
    def explain(draft: dict[str, Any]) -> tuple[str, str, str | None, str]:
        explained = world.post(f"{RULES}/explain", {**world.payout_body("0007"), "rule": draft})
        assert explained.status_code == 200, explained.text
        found = explained.json()
        return found["scenario"], found["source"], found["rule_id"], found["steps"][-1]["to"]

    steps, match = [{"to": "PROCESSING"}], {"suffix": "07"}
    draft = {"name": "draft", "match": match, "steps": steps}
    assert explain(draft) == ("draft", "own", None, "PROCESSING")
    assert explain({**draft, "match": {"suffix": "99"}}) == ("account_closed", "builtin", None, "FAILED")
    first = rule(world, "first", [{"to": "CANCELLED"}], match=match)
    rule(world, "second", [{"to": "CANCELLED"}], match=match)
    # It is the last one unless it has a position, or replaces the scenario of its name.
    assert explain(draft) == ("first", "own", first["id"], "CANCELLED")
    assert explain({**draft, "position": 1}) == ("draft", "own", None, "PROCESSING")
    assert explain({**draft, "position": 100}) == ("first", "own", first["id"], "CANCELLED")
    assert explain({**draft, "name": "first"}) == ("first", "own", None, "PROCESSING")
    assert explain({**draft, "name": "second"}) == ("first", "own", first["id"], "CANCELLED")
    listed = world.get(RULES).json()["data"]
    assert [known["name"] for known in listed if known["source"] == "own"] == ["first", "second"]

    wrong = {"name": "draft", "match": {"bank_code": "NONE", "amount_from": "0"}, "steps": [{"to": "RETURNED"}]}
    refused = world.post(f"{RULES}/explain", {**world.payout_body("0007"), "rule": wrong})
    assert {error["field"] for error in refused.json()["errors"]} == {
        "rule.match.bank_code", "rule.match.amount_from", "rule.steps[0].to",
    }  # fmt: skip
    refused = world.post(f"{RULES}/explain", {**world.payout_body("0007"), "dest_type": "CASH", "rule": wrong})
    assert {"dest_type", "rule.match.bank_code", "rule.steps[0].to"} <= {error["field"] for error in refused.json()["errors"]}


def test_explain_shows_the_matching_rule_and_its_timed_steps_and_creates_nothing(world: World) -> None:
    steps = [
        {"to": "PROCESSING", "after": 2},
        {"to": "SUCCESS", "after": 3},
        {"to": "RETURNED", "after": 60, "probability": 0.5},
    ]
    created = rule(world, "matching", steps, match={"suffix": "7", "metadata": {"a": "b"}})
    body = world.payout_body("0007", metadata={"a": "b"})
    explained = world.post(f"{RULES}/explain", body).json()
    assert (explained["scenario"], explained["source"], explained["rule_id"]) == ("matching", "own", created["id"])
    assert explained["matched_by"] == ["suffix", "metadata"]
    assert [(s["step"], s["to"], s["at"], s["event_type"], s["money"]) for s in explained["steps"]] == [
        (None, "PENDING", 0, "payout.created", "available → locked"),
        (0, "PROCESSING", 2, "payout.processing", None),
        (1, "SUCCESS", 5, "payout.succeeded", "locked → settlement"),
        (2, "RETURNED", 65, "payout.returned", "settlement → available"),
    ]
    expected = {
        "0012": ("returned", ["suffix"]), "9999": ("success", ["default"]),
    }  # fmt: skip
    for suffix, (name, matched_by) in expected.items():
        explained = world.post(f"{RULES}/explain", world.payout_body(suffix)).json()
        assert (explained["scenario"], explained["source"], explained["rule_id"], explained["matched_by"]) == (
            name,
            "builtin",
            None,
            matched_by,
        )
    explained = world.post(f"{RULES}/explain", world.payout_body("0001", amount=100000)).json()
    assert (explained["scenario"], explained["matched_by"]) == ("in_review", ["amount_from"])
    explained = world.post(
        f"{RULES}/explain", world.payout_body("0001", scenario_header="failed", requires_approval=True)
    ).json()
    assert [(s["to"], s["at"]) for s in explained["steps"]] == [
        ("REQUESTED", 0), ("PENDING", None), ("PROCESSING", None), ("FAILED", None),
    ]  # fmt: skip
    unknown = world.post(f"{RULES}/explain", world.payout_body("0001", scenario_header="unheard_of"))
    assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (400, "scenario_header")
    assert world.get("/api/v1/payouts").json()["data"] == []


# ---- validation

INVALID_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"steps": []}, "steps"),
    ({"steps": PAID * 11}, "steps"),
    ({"steps": [{"to": "PENDING"}]}, "steps[0].to"),
    ({"steps": [{"to": "RETURNED"}]}, "steps[0].to"),
    ({"steps": [*PAID, {"to": "PROCESSING"}]}, "steps[2].to"),
    ({"steps": [{"to": "PROCESSING"}, {"to": "FAILED"}, {"to": "PROCESSING"}]}, "steps[2].to"),
    ({"steps": [{"to": "PROCESSING"}, {"to": "FAILED", "probability": 0.5}, {"to": "RETURNED"}]}, "steps[2].to"),
    ({"steps": [*PAID, {"to": "FAILED"}]}, "steps[2].to"),
    ({"steps": [{"to": "PROCESSING", "probability": 0.5}, {"to": "RETRY"}]}, "steps[1].to"),
    (
        {"steps": [{"to": "PROCESSING"}, {"to": "ON_HOLD", "wait": True, "probability": 0.5}, {"to": "PROCESSING"}]},
        "steps[2].to",
    ),
    ({"steps": [{"to": "PROCESSING"}, {"to": "IN_REVIEW"}, {"to": "SUCCESS"}]}, "steps[2].to"),
    ({"steps": [*PAID[:1], {"to": "SUCCESS", "wait": True}, {"to": "RETURNED"}]}, "steps[1].wait"),
    ({"steps": [{"to": "PROCESSING", "failure_code": "X"}]}, "steps[0].failure_code"),
    ({"steps": [{"to": "FAILED", "psp_reference": "X"}]}, "steps[0].psp_reference"),
    ({"steps": [{"to": "FAILED", "after": -1}]}, "steps[0].after"),
    ({"steps": [{"to": "FAILED", "after": 3650 * 86400 + 1}]}, "steps[0].after"),
    ({"steps": [{"to": "FAILED", "probability": 1.01}]}, "steps[0].probability"),
    ({"steps": [{"to": "FAILED", "reason": "x"}]}, "steps[0].reason"),
    ({"match": {}}, "match"),
    ({"match": {"suffix": ""}}, "match.suffix"),
    ({"match": {"suffix": "12a"}}, "match.suffix"),
    ({"match": {"suffix": None}}, "match.suffix"),
    ({"match": {"bank_code": "NOBANK"}}, "match.bank_code"),
    ({"match": {"wallet_code": "NOWALLET"}}, "match.wallet_code"),
    ({"match": {"amount_from": 0}}, "match.amount_from"),
    ({"match": {"amount_from": 2, "amount_to": 1}}, "match.amount_to"),
    ({"match": {"user_id": "me"}}, "match.user_id"),
    ({"match": {"metadata": {}}}, "match.metadata"),
    ({"match": {"scenario_header": "two words"}}, "match.scenario_header"),
    ({"name": "Big"}, "name"),
    ({"name": "a" * 65}, "name"),
    ({"position": 0}, "position"),
    ({"position": 1.5}, "position"),
    ({"other": 1}, "other"),
]


@pytest.mark.parametrize(
    ("fields", "invalid_field"), INVALID_FIELDS, ids=[f"{field}-{n}" for n, (_, field) in enumerate(INVALID_FIELDS)]
)
def test_an_invalid_rule_is_refused_and_the_error_names_the_field(
    world: World, fields: dict[str, Any], invalid_field: str
) -> None:
    response = world.post(RULES, {"name": "own", "match": {"suffix": "7"}, "steps": PAID, **fields})
    assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR")
    assert invalid_field in [error["field"] for error in response.json()["errors"]]


def test_rule_names_are_unique_and_differ_from_built_in_names(world: World) -> None:
    one, two = rule(world, "one"), rule(world, "two")
    for name in ("one", "success"):
        assert world.post(RULES, {**_rule_body(one), "name": name}).json()["code"] == "INVALID_STATE"
        assert (
            world.client.put(f"{RULES}/{two['id']}", json={**_rule_body(two), "name": name}).json()["code"] == "INVALID_STATE"
        )
    assert world.client.put(f"{RULES}/{uuid.uuid4()}", json=_rule_body(one)).json()["code"] == "NOT_FOUND"
    assert world.client.delete(f"{RULES}/{uuid.uuid4()}").json()["code"] == "NOT_FOUND"
    with World.create(world.stack) as other:
        assert other.get(f"{RULES}/{one['id']}").json()["code"] == "NOT_FOUND"
        assert [r for r in other.get(RULES).json()["data"] if r["source"] == "own"] == []


def test_the_number_of_rules_per_merchant_is_limited(world: World) -> None:
    world.stack.execute(
        "INSERT INTO scenario_rules (merchant_id, id, name, position, match, steps) "
        "SELECT $1, gen_random_uuid(), 'r' || n, n, '{\"suffix\": \"0\"}', '[{\"to\": \"FAILED\"}]' "
        "FROM generate_series(1, $2::int) n",
        world.merchant_id, MAX_RULES - 1,
    )  # fmt: skip
    rule(world, "last")
    response = world.post(RULES, {"name": "more", "match": {"suffix": "7"}, "steps": PAID})
    assert (response.status_code, response.json()["code"]) == (409, "INVALID_STATE")
