"""API conventions: errors, roles, idempotency, lists, and no access to other merchants' objects."""

import json
import time
import uuid
from typing import Any

import httpx
import pytest

from tests.harness.waiting import until
from tests.harness.world import World


def problem(response: httpx.Response) -> tuple[int, str]:
    """Return the status and code of a response. Check that it is a complete problem document."""
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert set(body) - {"errors"} == {"type", "title", "status", "detail", "instance", "code", "request_id"}
    assert (body["status"], body["request_id"]) == (response.status_code, response.headers["x-request-id"])
    return response.status_code, body["code"]


BAD_BODIES: list[tuple[dict[str, Any], str]] = [
    ({"amount": "0.00"}, "amount"),
    ({"amount": "-1.00"}, "amount"),
    ({"amount": "1.001"}, "amount"),
    ({"amount": "1e2"}, "amount"),
    ({"amount": "1,000.00"}, "amount"),
    ({"amount": "1000000000000.00"}, "amount"),
    ({"amount": True}, "amount"),
    ({"amount": None}, "amount"),
    ({"amount": "١٢"}, "amount"),
    ({"amount": "1.00\n"}, "amount"),
    ({"currency": "USD"}, "currency"),
    ({"dest_type": "CASH"}, "dest_type"),
    ({"bank_code": "NOBANK"}, "bank_code"),
    ({"bank_code": None}, "bank_code"),
    ({"wallet_code": "EASYPAISA"}, "wallet_code"),
    ({"account_number": "123456789"}, "account_number"),
    ({"account_number": "1234567890123\n"}, "account_number"),
    ({"account_number": "PK36SCBL0000001123456703"}, "account_number"),
    ({"account_number": "PK36SCBL0000001123456702"}, "account_number"),
    ({"merchant_reference": ""}, "merchant_reference"),
    ({"merchant_reference": "x" * 65}, "merchant_reference"),
    ({"merchant_reference": "a\u0000b"}, "merchant_reference"),
    ({"metadata": {str(n): "x" for n in range(21)}}, "metadata"),
    ({"metadata": {"a": 1}}, "metadata"),
    ({"requires_approval": "yes"}, "requires_approval"),
    ({"unknown": 1}, "unknown"),
]


@pytest.mark.parametrize(("change", "field"), BAD_BODIES)
def test_an_invalid_field_is_refused_and_named(world: World, change: dict[str, Any], field: str) -> None:
    response = world.post("/api/v1/payouts", world.payout_body(**change))
    assert problem(response) == (400, "VALIDATION_ERROR")
    assert field in response.json()["errors"][0]["field"]
    assert world.balance() == ("1000000.00", "0.00")


@pytest.mark.parametrize("amount", ["1500.1", "1500", 1500, 1500.5, "0.01", "999999.99"])
def test_amounts_are_strings_or_numbers_with_up_to_two_decimal_places(world: World, amount: str | float) -> None:
    created = world.create_payout("0004", amount=amount)
    assert created["amount"] == f"{float(amount):.2f}"


def test_ibans_bank_aliases_and_wallets_are_accepted(world: World) -> None:
    iban = world.create_payout(account_number="PK66HABB0000001234567890", bank_code="HBL")
    assert iban["scenario"] == "success"
    alias = world.create_payout(bank_code="BANKALHABIB")
    assert alias["bank_code"] == "BAHL"
    wallet = world.create_payout(dest_type="WALLET", bank_code=None, wallet_code="JAZZCASH", account_number="03001230003")
    assert (wallet["wallet_code"], wallet["scenario"]) == ("JAZZCASH", "failed")


def test_requests_need_a_valid_key_with_the_required_role(world: World) -> None:
    client = httpx.Client(base_url=world.stack.api_url, timeout=60)
    assert problem(client.get("/api/v1/payouts")) == (401, "MISSING_API_KEY")
    assert problem(client.get("/api/v1/payouts", headers={"X-API-KEY": "sk_sandbox_no"})) == (401, "INVALID_API_KEY")
    member = world.client.post("/sandbox/v1/keys", json={"role": "member"}).json()
    as_member = {"X-API-KEY": member["api_key"], "X-IDEMPOTENCY-KEY": "m"}
    payout = world.create_payout(requires_approval=True)
    refused = client.patch(f"/api/v1/payouts/{payout['id']}/approve", headers=as_member)
    assert problem(refused) == (403, "FORBIDDEN")
    assert problem(client.post("/sandbox/v1/keys", json={"role": "member"}, headers=as_member)) == (403, "FORBIDDEN")
    assert client.get("/api/v1/payouts", headers=as_member).status_code == 200
    assert world.client.delete(f"/sandbox/v1/keys/{member['id']}").status_code == 204
    revoked = time.monotonic()
    until(lambda: client.get("/api/v1/payouts", headers=as_member).status_code == 401)
    # Both API processes cache the key. After one second, neither must accept it.
    until(lambda: time.monotonic() - revoked > 1)
    assert {client.get("/api/v1/payouts", headers=as_member).status_code for _ in range(20)} == {401}
    client.close()


class TestIdempotency:
    """The same key gives the same response, byte for byte, and the request runs once."""

    def test_a_quoted_key_and_the_alias_header_are_the_same_key(self, world: World) -> None:
        body = world.payout_body("0004")
        first = world.post("/api/v1/payouts", body, key="abc")
        content = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        again = world.client.post(
            "/api/v1/payouts",
            content=first.request.content or content,
            headers={"Idempotency-Key": '"abc"', "Content-Type": "application/json"},
        )
        assert again.headers["idempotent-replayed"] == "true"

    def test_business_errors_are_stored_but_validation_errors_are_not(self, world: World) -> None:
        too_large = world.payout_body("0004", amount="2000000.00")
        assert problem(world.post("/api/v1/payouts", too_large, key="stored")) == (422, "INSUFFICIENT_BALANCE")
        world.client.post("/sandbox/v1/balance/top-up", json={"amount": "5000000.00"})
        again = world.post("/api/v1/payouts", too_large, key="stored")
        assert replayed_problem(again) == (422, "INSUFFICIENT_BALANCE")
        assert world.post("/api/v1/payouts", {"nonsense": 1}, key="free").status_code == 400
        assert world.post("/api/v1/payouts", world.payout_body("0004"), key="free").status_code == 201

    def test_a_key_expires_after_24_hours_on_the_merchants_clock(self, world: World) -> None:
        body = world.payout_body("0004")
        assert world.post("/api/v1/payouts", body, key="day").status_code == 201
        world.shift_clock(24 * 3600 + 1)
        assert problem(world.post("/api/v1/payouts", body, key="day")) == (409, "DUPLICATE_REFERENCE")


def replayed_problem(response: httpx.Response) -> tuple[int, str]:
    """Return the status and code of a stored problem. Unlike for `problem`, its request_id is the first request's."""
    assert response.headers["idempotent-replayed"] == "true"
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


def test_a_batch_returns_results_in_order_and_each_payout_succeeds_or_fails_alone(world: World) -> None:
    valid, too_large = world.payout_body("0004"), world.payout_body("0004", amount="5000000.00")
    items = [valid, too_large, valid, {"nonsense": 1}, world.payout_body("0004")]
    response = world.post("/api/v1/payouts/batch", {"payouts": items}, key="batch")
    results = response.json()["results"]
    assert [result["status"] for result in results] == [201, 422, 409, 400, 201]
    assert [result.get("problem", {}).get("code") for result in results] == [
        None, "INSUFFICIENT_BALANCE", "DUPLICATE_REFERENCE", "VALIDATION_ERROR", None,
    ]  # fmt: skip
    assert world.post("/api/v1/payouts/batch", {"payouts": items}, key="batch").content == response.content
    assert world.balance() == ("999800.00", "200.00")
    assert problem(world.post("/api/v1/payouts/batch", {"payouts": []})) == (400, "VALIDATION_ERROR")
    assert problem(world.post("/api/v1/payouts/batch", {"payouts": [valid] * 1001})) == (400, "VALIDATION_ERROR")
    world.assert_clean()


def pages(world: World, path: str, **params: Any) -> list[dict[str, Any]]:
    """Fetch all pages of a list and return its items."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = world.get(path, **params, **cursor).json()
        found += page["data"]
        assert (page["next_cursor"] is None) == (not page["has_more"])
        if not page["has_more"]:
            return found
        cursor = {"cursor": page["next_cursor"]}


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_contain_every_item_once_newest_first(world: World, limit: int) -> None:
    bodies = [world.payout_body("0004") for _ in range(7)]
    world.post("/api/v1/payouts/batch", {"payouts": bodies})
    found = pages(world, "/api/v1/payouts", limit=limit)
    assert [payout["merchant_reference"] for payout in found] == [b["merchant_reference"] for b in reversed(bodies)]
    entries = pages(world, "/api/v1/balance/history", limit=limit)
    assert len({entry["id"] for entry in entries}) == len(entries) == 2 * 7 + 1
    assert [e["transfer_id"] for e in entries] == sorted((e["transfer_id"] for e in entries), reverse=True)
    locked = pages(world, "/api/v1/balance/history", limit=limit, account="LOCKED")
    assert [entry["balance_after"] for entry in locked] == [f"{100 * n}.00" for n in range(7, 0, -1)]


def test_payouts_are_filtered_by_each_documented_parameter(world: World) -> None:
    bank = world.create_payout("0004")
    wallet = world.create_payout("0004", dest_type="WALLET", bank_code=None, wallet_code="NAYAPAY")
    done = world.create_payout("0001")
    world.wait_for(done["id"], "SUCCESS")

    def ids(**params: str) -> list[str]:
        response = world.get("/api/v1/payouts", **params)
        assert response.status_code == 200, response.text
        return [payout["id"] for payout in response.json()["data"]]

    assert ids(status="PENDING") == [wallet["id"], bank["id"]]
    assert ids(status="SUCCESS") == [done["id"]]
    assert ids(dest_type="WALLET") == [wallet["id"]]
    assert ids(status="PENDING", dest_type="BANK") == [bank["id"]]
    assert ids(merchant_reference=bank["merchant_reference"]) == [bank["id"]]
    assert ids(merchant_reference="nothing") == []
    assert ids(user_id=str(uuid.uuid4())) == []
    assert ids(created_from=wallet["created_at"], created_to=done["created_at"]) == [wallet["id"]]


@pytest.mark.parametrize("given", ["mine-1", "x" * 128])
def test_the_callers_request_id_is_returned(world: World, given: str) -> None:
    assert world.client.get("/health", headers={"X-Request-Id": given}).headers["x-request-id"] == given
    assert world.client.get("/health", headers={"X-Request-Id": "x" * 129}).headers["x-request-id"] != given


@pytest.mark.parametrize(
    ("suffix", "action"),
    [("0001", "cancel"), ("0001", "approve"), ("0001", "reject"), ("0001", "reinitiate"), ("0003", "cancel")],
)
def test_an_illegal_transition_is_refused_and_the_error_names_the_legal_ones(world: World, suffix: str, action: str) -> None:
    payout = world.create_payout(suffix)
    final = world.wait_for(payout["id"], "SUCCESS", "FAILED")
    method = world.patch if action in ("approve", "reject") else world.post
    response = method(f"/api/v1/payouts/{payout['id']}/{action}")
    assert problem(response) == (409, "INVALID_STATE")
    assert {"SUCCESS": "RETURNED", "FAILED": "PENDING"}[final["status"]] in response.json()["detail"]
    world.assert_clean()


def test_merchants_need_the_operator_key_and_are_deleted_with_all_their_rows(world: World) -> None:
    client = httpx.Client(base_url=world.stack.api_url, timeout=60)
    assert problem(client.post("/sandbox/v1/merchants", json={"name": "x"})) == (401, "MISSING_API_KEY")
    wrong = {"X-ADMIN-KEY": "wrong"}
    assert problem(client.post("/sandbox/v1/merchants", json={"name": "x"}, headers=wrong)) == (401, "INVALID_API_KEY")
    payout = world.create_payout("0001")
    world.wait_for(payout["id"], "SUCCESS")
    operator = {"X-ADMIN-KEY": world.stack.admin_key}
    assert client.delete(f"/sandbox/v1/merchants/{world.merchant_id}", headers=operator).status_code == 204
    assert problem(client.delete(f"/sandbox/v1/merchants/{world.merchant_id}", headers=operator)) == (404, "NOT_FOUND")
    until(lambda: world.get("/api/v1/balance").status_code in (401, 404))
    for table in ("payouts", "transfers", "events", "accounts", "idempotency_keys", "api_keys"):
        remaining = world.stack.execute(f"SELECT count(*) FROM {table} WHERE merchant_id = $1", world.merchant_id)
        assert remaining == [{"count": 0}]
    client.close()
