"""When sales are paid, what makes a payment attempt fail, and how the sale, the log and the metrics show it."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from sandbox.domain.money import ZERO
from sandbox.domain.sale import failure_of
from sandbox.domain.scenario_engine import Facts, Match, Scenario, Step
from sandbox.users.sales.service import SalesService
from tests.harness.work import pooled, request_of, units_of_work
from tests.harness.world import World
from tests.test_sales import ADVANCE, FINAL, REFUSED, reconcile, run, sales, sell, world
from tests.test_users import DESTINATION, make_user, summary

__all__ = ["world"]


def sale(world: World, sale_id: str) -> dict[str, Any]:
    response = world.get(f"/api/v1/sales/{sale_id}")
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def rule(world: World, match: dict[str, Any], *statuses: str, **step_fields: Any) -> None:
    body = {
        "name": f"rule_{statuses[-1].lower()}",
        "match": match,
        "steps": [{"to": status, **step_fields} for status in statuses],
    }
    response = world.post("/sandbox/v1/scenarios", body)
    assert response.status_code == 201, response.text


def test_a_sale_shows_its_failed_attempt_and_the_next_run_pays_once_the_destination_is_corrected(world: World) -> None:
    user_id = make_user(world, destination=REFUSED)
    sale_id = sell(world, user_id, "40")
    assert sale(world, sale_id)["attempts"] == 0
    for attempts in (1, 2):
        assert run(world, ADVANCE) == {"paid": 0, "failed": 1, "total_amount": "0.00"}
        found = sale(world, sale_id)
        assert (found["attempts"], found["payments"]) == (attempts, [])
        assert found["last_error"] == "ADVANCE failed: BANK_REJECTED (scenario failed)"
    assert summary(world, user_id)["balance"] == "0.00"
    assert world.patch(f"/api/v1/users/{user_id}", {"destination": DESTINATION}).status_code == 200
    assert run(world, ADVANCE) == {"paid": 1, "failed": 0, "total_amount": "4.00"}
    reconcile(world, **{sale_id: "APPROVED"})
    assert run(world, FINAL)["paid"] == 1
    found = sale(world, sale_id)
    assert (found["attempts"], found["last_error"]) == (4, None)
    history = world.get(f"/api/v1/users/{user_id}/history").json()["data"]
    assert [(p["kind"], p["amount"], p["transfer_id"]) for p in found["payments"]] == [
        ("ADVANCE", "4.00", history[1]["transfer_id"]), ("FINAL", "36.00", history[0]["transfer_id"]),
    ]  # fmt: skip
    assert all(set(payment) == {"kind", "amount", "transfer_id", "created_at"} for payment in found["payments"])
    assert sales(world)[sale_id] == found, "the list must show the same sale"
    world.assert_clean()


def test_a_sale_is_found_by_its_location_header_and_by_its_user(world: World) -> None:
    users = [make_user(world), make_user(world)]
    ids = [sell(world, user_id, "40") for user_id in (*users, users[0])]
    response = world.post("/api/v1/sales", {"user_id": users[1], "brand": "b", "earning": "1"})
    assert world.get(response.headers["location"]).json() == response.json()
    assert list(sales(world, user_id=users[0])) == [ids[2], ids[0]]
    reconcile(world, **{ids[0]: "DECLINED"})
    assert list(sales(world, user_id=users[0], status="DECLINED")) == [ids[0]]
    first = world.get("/api/v1/sales", user_id=users[0], limit=1).json()
    rest = world.get("/api/v1/sales", user_id=users[0], limit=1, cursor=first["next_cursor"]).json()
    assert [page["data"][0]["id"] for page in (first, rest)] == [ids[2], ids[0]]
    assert rest["has_more"] is False
    assert world.get("/api/v1/sales", user_id="x").status_code == 400
    for sale_id in (users[0], "x", "%00"):
        assert world.get(f"/api/v1/sales/{sale_id}").status_code == 404


@pytest.mark.parametrize(
    ("match", "fails"),
    [
        ({"suffix": "0001"}, True),
        ({"account_number": DESTINATION["account_number"]}, True),
        ({"bank_code": "HBL"}, True),
        ({"amount_from": "4.00", "amount_to": "4.00"}, True),
        ({"metadata": {"kind": "ADVANCE", "brand": "Khaadi"}}, True),
        ({"suffix": "0002"}, False),
        ({"amount_from": "4.01"}, False),
        ({"metadata": {"kind": "FINAL"}}, False),
        ({"scenario_header": "x"}, False),
    ],
)
def test_a_merchants_own_scenario_decides_the_payments_that_it_matches(
    world: World, match: dict[str, Any], fails: bool
) -> None:
    sale_id = sell(world, make_user(world), "40")
    rule(world, match, "PROCESSING", "FAILED")
    assert run(world, ADVANCE)["failed"] == fails
    error = "ADVANCE failed: BANK_REJECTED (scenario rule_failed)"
    assert sale(world, sale_id)["last_error"] == (error if fails else None)
    world.assert_clean()


def test_a_rule_for_a_user_overrides_the_destination_and_its_failure_code_is_shown(world: World) -> None:
    refused, other = make_user(world, destination=REFUSED), make_user(world)
    ids = [sell(world, refused, "40"), sell(world, other, "40")]
    rule(world, {"user_id": refused}, "PROCESSING", "SUCCESS")
    response = world.post(
        "/sandbox/v1/scenarios",
        {
            "name": "closed",
            "match": {"user_id": other},
            "steps": [{"to": "PROCESSING"}, {"to": "FAILED", "failure_code": "ACCOUNT_CLOSED"}],
        },
    )
    assert response.status_code == 201
    assert run(world, ADVANCE) == {"paid": 1, "failed": 1, "total_amount": "4.00"}
    assert [sale(world, sale_id)["last_error"] for sale_id in ids] == [None, "ADVANCE failed: ACCOUNT_CLOSED (scenario closed)"]


def facts(account_number: str = "12345678900001") -> Facts:
    return Facts(ZERO, account_number, "HBL", None, "u", {})


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (["PROCESSING", "SUCCESS"], None),
        (["PROCESSING", "ON_HOLD"], None),
        (["PROCESSING", "RETRY", "PROCESSING", "FAILED"], "BANK_REJECTED"),
        (["CANCELLED"], "CANCELLED"),
        (["PROCESSING", "SUCCESS", "RETURNED"], "RETURNED_BY_BANK"),
        # As for a payout, only a return can follow SUCCESS. Steps before the return are skipped.
        (["PROCESSING", "SUCCESS", "FAILED", "RETURNED"], "RETURNED_BY_BANK"),
        (["PROCESSING", "FAILED", "SUCCESS"], "BANK_REJECTED"),
    ],
)
def test_the_last_step_taken_decides_whether_a_payment_fails(path: list[str], code: str | None) -> None:
    found = failure_of(facts(), [Scenario("own", Match(suffix="0001"), tuple(Step(to) for to in path))], "x")
    assert found == (None if code is None else (code, "own"))


@given(st.text(), st.floats(0, 1))
def test_a_random_failure_is_drawn_once_per_attempt(draw_key: str, probability: float) -> None:
    steps = (Step("PROCESSING"), Step("FAILED", probability=probability), Step("SUCCESS"))
    rules = [Scenario("own", Match(suffix="0001"), steps)]
    found = failure_of(facts(), rules, draw_key)
    assert found == failure_of(facts(), rules, draw_key)
    if probability in (0, 1):
        assert (found is not None) == (probability == 1)


def test_random_failures_occur_about_as_often_as_configured() -> None:
    steps = (Step("PROCESSING"), Step("FAILED", probability=0.5), Step("SUCCESS"))
    rules = [Scenario("own", Match(suffix="0001"), steps)]
    failed = sum(failure_of(facts(), rules, f"sale:{n}") is not None for n in range(1000))
    assert 400 < failed < 600


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"{name}_total", labels) or 0.0


def test_runs_and_failed_attempts_are_logged_and_counted_in_metrics(world: World) -> None:
    refused = sell(world, make_user(world, destination=REFUSED), "40")
    sell(world, make_user(world), "40")
    before = {outcome: metric("psp_sale_payments", kind="ADVANCE", outcome=outcome) for outcome in ("paid", "failed")}
    runs = metric("psp_sales_runs", kind="ADVANCE", cause="api")

    async def pay() -> None:
        async with pooled(world.stack.database_url, 2):
            await SalesService(units_of_work()).run(request_of(world.merchant_id, request_id="req-1"), "ADVANCE")

    with capture_logs() as logs:
        asyncio.run(pay())
    (failed,) = [log for log in logs if log["event"] == "sale_payment_failed"]
    assert (failed["sale_id"], failed["kind"], failed["amount"]) == (refused, "ADVANCE", "4.00")
    assert failed["error"] == "ADVANCE failed: BANK_REJECTED (scenario failed)"
    (done,) = [log for log in logs if log["event"] == "sales_run"]
    assert (done["merchant_id"], done["kind"], done["cause"]) == (world.merchant_id, "ADVANCE", "api")
    assert (done["request_id"], done["paid"], done["failed"], done["total_amount"]) == ("req-1", 1, 1, "4.00")
    for outcome in ("paid", "failed"):
        assert metric("psp_sale_payments", kind="ADVANCE", outcome=outcome) == before[outcome] + 1
    assert metric("psp_sales_runs", kind="ADVANCE", cause="api") == runs + 1
    assert run(world, ADVANCE)["failed"] == 1  # in a process of the API, whose metrics are shown
    assert 'psp_sale_payments_total{kind="ADVANCE",outcome="failed"}' in world.client.get("/metrics").text
    assert summary(world, sale(world, refused)["user_id"])["balance"] == "0.00"
