"""Users, their wallets, payout requests and approvals: documented amounts and limits, and the cached summary."""

import threading
import uuid
from decimal import Decimal
from typing import Any

import httpx
import pytest
import redis

from tests.harness.waiting import until
from tests.harness.world import Stack, World

DESTINATION = {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}


def make_user(world: World, **fields: Any) -> str:
    response = world.post("/api/v1/users", {"name": "Ayesha Khan", "destination": DESTINATION, **fields})
    assert response.status_code == 201, response.text
    assert response.headers["location"] == f"/api/v1/users/{response.json()['id']}"
    user_id: str = response.json()["id"]
    return user_id


def record(world: World, user_id: str, kind: str, amount: str) -> None:
    response = world.post(f"/api/v1/users/{user_id}/transactions", {"type": kind, "amount": amount})
    assert response.status_code == 201, response.text


def request_payout(world: World, user_id: str, amount: str) -> dict[str, Any]:
    response = world.post(f"/api/v1/users/{user_id}/payout", {"amount": amount})
    assert response.status_code == 201, response.text
    payout: dict[str, Any] = response.json()
    return payout


def summary(world: World, user_id: str) -> dict[str, Any]:
    summary: dict[str, Any] = world.get(f"/api/v1/users/{user_id}/summary").json()
    return summary


def test_the_summary_has_the_documented_amounts(world: World) -> None:
    user_id = make_user(world)
    record(world, user_id, "EARNED", "1000")
    record(world, user_id, "SPENT", "100")
    paid = request_payout(world, user_id, "50")
    assert paid["status"] == "REQUESTED"
    assert paid["user_id"] == user_id
    assert world.patch(f"/api/v1/payouts/{paid['id']}/approve").status_code == 200
    world.wait_for(paid["id"], "SUCCESS")
    world.stack.execute("UPDATE worlds SET default_scenario = 'pending' WHERE merchant_id = $1", world.merchant_id)
    other = make_user(world, destination={**DESTINATION, "account_number": "12345678900004"})
    record(world, other, "EARNED", "10")
    # With suffix 0004, the user's second payout stays pending after its approval, until it is cancelled.
    world.stack.execute(
        "UPDATE users SET account_number = '12345678900004' WHERE merchant_id = $1 AND id = $2", world.merchant_id, user_id
    )
    approved = request_payout(world, user_id, "50")
    assert world.patch(f"/api/v1/payouts/{approved['id']}/approve").status_code == 200
    request_payout(world, user_id, "30")
    assert summary(world, user_id) == {
        "user_id": user_id,
        "currency": "PKR",
        "balance": "800.00",
        "earned": "1000.00",
        "spent": "100.00",
        "credited": "0.00",
        "advances": "0.00",
        "finals": "0.00",
        "payout_requested": "30.00",
        "payout_approved": "50.00",
        "payout_paid": "50.00",
        "available": "770.00",
    }
    balance = world.get(f"/api/v1/users/{user_id}/balance").json()
    assert balance == {"user_id": user_id, "balance": "800.00", "available": "770.00"}
    world.assert_clean()


def test_requested_payouts_are_totalled_per_user(world: World) -> None:
    first, second, without_request = make_user(world), make_user(world), make_user(world)
    for user_id, amounts in ((first, ("30", "19.5")), (second, ("15",))):
        record(world, user_id, "EARNED", "100")
        for amount in amounts:
            request_payout(world, user_id, amount)
    record(world, without_request, "EARNED", "100")
    found = world.get("/api/v1/payouts/requests").json()
    assert found == {
        "data": [
            {"user_id": second, "total_requested": "15.00"},
            {"user_id": first, "total_requested": "49.50"},
        ],
        "has_more": False,
        "next_cursor": None,
    }
    page = world.get("/api/v1/payouts/requests", limit=1).json()
    rest = world.get("/api/v1/payouts/requests", limit=1, cursor=page["next_cursor"]).json()
    assert [page["data"][0]["user_id"], rest["data"][0]["user_id"]] == [second, first]


@pytest.mark.parametrize(
    ("suffix", "action", "final_status"),
    [
        ("0003", "approve", "FAILED"),
        ("0001", "reject", "REJECTED"),
        ("0001", "cancel", "CANCELLED"),
        ("0012", "approve", "RETURNED"),
    ],
)
def test_an_unsuccessful_payout_returns_the_money_to_the_wallet(
    world: World, suffix: str, action: str, final_status: str
) -> None:
    user_id = make_user(world, destination={**DESTINATION, "account_number": f"1234567890{suffix}"})
    record(world, user_id, "EARNED", "80")
    payout = request_payout(world, user_id, "80")
    assert summary(world, user_id)["available"] == "0.00"
    send = world.post if action == "cancel" else world.patch
    assert send(f"/api/v1/payouts/{payout['id']}/{action}").status_code == 200
    if final_status == "RETURNED":
        world.wait_for(payout["id"], "SUCCESS")
        assert summary(world, user_id)["payout_paid"] == "80.00"
        world.shift_clock(61)
    world.wait_for(payout["id"], final_status)
    until(lambda: summary(world, user_id)["balance"] == "80.00")
    assert summary(world, user_id)["available"] == "80.00"
    assert world.balance() == ("1000000.00", "0.00")
    world.assert_clean()


def test_a_failed_payout_is_reinitiated_only_if_the_wallet_covers_it(world: World) -> None:
    user_id = make_user(world, destination={**DESTINATION, "account_number": "12345678900003"})
    record(world, user_id, "EARNED", "80")
    payout = request_payout(world, user_id, "80")
    world.patch(f"/api/v1/payouts/{payout['id']}/approve")
    world.wait_for(payout["id"], "FAILED")
    request_payout(world, user_id, "1")
    response = world.post(f"/api/v1/payouts/{payout['id']}/reinitiate")
    assert (response.status_code, response.json()["code"]) == (422, "INSUFFICIENT_BALANCE")
    record(world, user_id, "EARNED", "1")
    assert world.post(f"/api/v1/payouts/{payout['id']}/reinitiate").status_code == 200
    world.wait_for(payout["id"], "FAILED")
    world.assert_clean()


def test_concurrent_requests_never_exceed_the_available_balance(world: World) -> None:
    user_id = make_user(world)
    record(world, user_id, "EARNED", "100")
    statuses: list[int] = []

    def request() -> None:
        statuses.append(world.post(f"/api/v1/users/{user_id}/payout", {"amount": "30"}).status_code)

    threads = [threading.Thread(target=request) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] * 3 + [422] * 9
    assert summary(world, user_id)["available"] == "10.00"
    world.assert_clean()


def test_a_request_cannot_be_approved_after_its_money_was_spent(world: World) -> None:
    user_id = make_user(world)
    record(world, user_id, "EARNED", "100")
    payout = request_payout(world, user_id, "100")
    record(world, user_id, "SPENT", "0.01")
    response = world.patch(f"/api/v1/payouts/{payout['id']}/approve")
    assert (response.status_code, response.json()["code"]) == (422, "INSUFFICIENT_BALANCE")
    assert world.payout(payout["id"])["status"] == "REQUESTED"
    world.assert_clean()


def test_users_are_listed_and_found_by_external_id_and_ids_are_unique(world: World) -> None:
    first = make_user(world, external_id="one", vendor_user_id="074092")
    second = make_user(world, external_id="two")
    assert [user["id"] for user in world.get("/api/v1/users").json()["data"]] == [second, first]
    found = world.get("/api/v1/users", external_id="one").json()["data"]
    assert [(user["id"], user["vendor_user_id"]) for user in found] == [(first, "074092")]
    assert world.get(f"/api/v1/users/{second}").json()["vendor_user_id"] == second
    for fields in ({"external_id": "one"}, {"vendor_user_id": "074092"}):
        response = world.post("/api/v1/users", {"name": "B", **fields})
        assert (response.status_code, response.json()["code"]) == (409, "DUPLICATE_REFERENCE")
    users = [{"name": "C", "external_id": "three"}, {"name": "D", "external_id": "three"}, {"x": 1}]
    results = world.post("/api/v1/users/batch", {"users": users}).json()["results"]
    assert [result["status"] for result in results] == [201, 409, 400]


def test_a_user_without_a_destination_cannot_request_a_payout(world: World) -> None:
    user_id = make_user(world, destination=None)
    record(world, user_id, "EARNED", "10")
    response = world.post(f"/api/v1/users/{user_id}/payout", {"amount": "1"})
    assert (response.status_code, response.json()["code"]) == (409, "INVALID_STATE")


def test_the_summary_is_cached_until_a_change(world: World) -> None:
    user_id = make_user(world)
    path = f"/api/v1/users/{user_id}/summary"
    assert [world.get(path).headers["x-cache"] for _ in range(3)] == ["MISS", "HIT", "HIT"]
    record(world, user_id, "EARNED", "100")
    assert world.get(path).headers["x-cache"] == "MISS"
    payout = request_payout(world, user_id, "40")
    assert world.get(path).headers["x-cache"] == "MISS"
    world.patch(f"/api/v1/payouts/{payout['id']}/approve")
    until(lambda: summary(world, user_id)["payout_paid"] == "40.00")
    assert world.get(path).headers["x-cache"] == "HIT"
    with redis.Redis.from_url(world.stack.redis_url) as client:
        assert 0 < client.ttl(f"cache-summary-user-{user_id}") <= 120
        client.delete(f"cache-summary-user-{user_id}")
    assert world.get(path).headers["x-cache"] == "MISS"


def test_the_cache_never_returns_a_value_older_than_the_last_response(world: World) -> None:
    """With concurrent readers, a summary requested after the response to a change includes the change."""
    user_id = make_user(world)
    stopped = threading.Event()

    def read() -> None:
        with httpx.Client(base_url=world.stack.api_url, headers={"X-API-KEY": world.api_key}, timeout=60) as client:
            while not stopped.is_set():
                client.get(f"/api/v1/users/{user_id}/summary").raise_for_status()

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    try:
        for count in range(1, 41):
            record(world, user_id, "EARNED", "1")
            assert Decimal(summary(world, user_id)["earned"]) == count
    finally:
        stopped.set()
        for reader in readers:
            reader.join()


def test_a_refused_request_names_the_balance_that_is_too_small(stack: Stack) -> None:
    """Both the user's wallet and the merchant's balance must cover the payout of a user."""
    with World.create(stack, opening_balance="50.00") as world:
        user_id = make_user(world)
        record(world, user_id, "EARNED", "80")
        response = world.post(f"/api/v1/users/{user_id}/payout", {"amount": "80.01"})
        assert (response.status_code, response.json()["code"]) == (422, "INSUFFICIENT_BALANCE")
        assert "the user's wallet has 80.00" in response.json()["detail"]
        response = world.post(f"/api/v1/users/{user_id}/payout", {"amount": "80"})
        assert (response.status_code, response.json()["code"]) == (422, "INSUFFICIENT_BALANCE")
        assert "the merchant's available balance is 50.00" in response.json()["detail"]
        assert summary(world, user_id)["available"] == "80.00"


def test_a_change_of_a_user_affects_only_the_given_fields(world: World) -> None:
    user_id = make_user(world, external_id="one")
    path = f"/api/v1/users/{user_id}"
    before = world.get(path).json()
    assert world.patch(path, {}).json() == before
    wallet = {"dest_type": "WALLET", "wallet_code": "JAZZCASH", "account_number": "03001234567"}
    changed = world.patch(path, {"destination": wallet})
    assert changed.status_code == 200, changed.text
    assert changed.json() == before | {"destination": {**wallet, "bank_code": None}} == world.get(path).json()
    assert world.patch(path, {"name": "Sana"}).json()["destination"] == changed.json()["destination"]
    cleared = world.patch(path, {"external_id": None, "destination": None}).json()
    assert (cleared["name"], cleared["external_id"], cleared["destination"]) == ("Sana", None, None)
    make_user(world, external_id="one")
    response = world.patch(path, {"external_id": "one"})
    assert (response.status_code, response.json()["code"]) == (409, "DUPLICATE_REFERENCE")
    key = str(uuid.uuid4())
    first, again = (world.patch(path, {"external_id": "two"}, key=key) for _ in range(2))
    assert (first.status_code, again.headers["idempotent-replayed"], again.content) == (200, "true", first.content)
    assert world.patch(path, {"external_id": "two"}).status_code == 200, "a user must be able to keep its own external id"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"vendor_user_id": "12"}, "vendor_user_id"),
        ({"destination": {**DESTINATION, "bank_code": "NONE"}}, "destination.bank_code"),
        ({"destination": {**DESTINATION, "wallet_code": "JAZZCASH"}}, "destination.wallet_code"),
    ],
)
def test_an_invalid_change_of_a_user_is_refused_and_the_error_names_the_field(
    world: World, body: dict[str, Any], field: str
) -> None:
    user_id = make_user(world)
    before = world.get(f"/api/v1/users/{user_id}").json()
    response = world.patch(f"/api/v1/users/{user_id}", body)
    assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR")
    assert field in [error["field"] for error in response.json()["errors"]]
    assert world.get(f"/api/v1/users/{user_id}").json() == before


def test_a_change_of_an_unknown_user_is_not_found(world: World, stack: Stack) -> None:
    user_id = make_user(world)
    with World.create(stack) as other:
        for target in (user_id, "x"):
            assert other.patch(f"/api/v1/users/{target}", {"name": "B"}).status_code == 404


def test_a_requested_payout_keeps_its_destination_when_the_user_changes(world: World) -> None:
    user_id = make_user(world)
    record(world, user_id, "EARNED", "10")
    payout_id = request_payout(world, user_id, "5")["id"]
    world.patch(f"/api/v1/users/{user_id}", {"destination": {**DESTINATION, "account_number": "12345678900003"}})
    assert world.payout(payout_id)["account_number"] == DESTINATION["account_number"]
    assert request_payout(world, user_id, "5")["account_number"] == "12345678900003"
