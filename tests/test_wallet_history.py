"""A wallet's history has every ledger entry, its user's transactions are complete, and the totals add up."""

import itertools
import uuid
from decimal import Decimal
from typing import Any

import pytest

from tests.harness.waiting import until
from tests.harness.world import World
from tests.test_sales import ADVANCE, FINAL, reconcile, run, sell
from tests.test_users import DESTINATION, make_user, record, request_payout, summary


def pages(world: World, path: str, limit: int, **filters: str) -> list[dict[str, Any]]:
    """Fetch all pages of a list and return its items."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = world.get(path, limit=limit, **filters, **cursor).json()
        assert len(page["data"]) <= limit
        found += page["data"]
        if not page["has_more"]:
            return found
        cursor = {"cursor": page["next_cursor"]}


@pytest.fixture
def user_with_history(world: World) -> tuple[World, str]:
    """Return a frozen merchant and its user, whose wallet has transactions of every type."""
    assert world.post("/sandbox/v1/clock/freeze").status_code == 200
    user_id = make_user(world, destination={**DESTINATION, "account_number": "12345678900004"})
    record(world, user_id, "EARNED", "100")
    record(world, user_id, "SPENT", "10")
    ids = [sell(world, user_id, "40") for _ in range(2)]
    assert run(world, ADVANCE)["paid"] == 2
    reconcile(world, **{ids[0]: "APPROVED", ids[1]: "DECLINED"})
    assert run(world, FINAL)["paid"] == 2
    response = world.client.post(
        "/api/v1/wallet/bulk-credit",
        files={"file": ("credits.csv", f"uuid,amount\n{user_id},7.00\n{user_id},0.50\n", "text/csv")},
        headers={"X-IDEMPOTENCY-KEY": str(uuid.uuid4())},
    )
    assert response.status_code == 202, response.text
    until(lambda: summary(world, user_id)["credited"] == "7.50")
    paid, returned = request_payout(world, user_id, "20")["id"], request_payout(world, user_id, "30")["id"]
    request_payout(world, user_id, "5")
    for payout_id, path in ((paid, ("PENDING", "SUCCESS")), (returned, ("PENDING", "SUCCESS", "RETURNED"))):
        for status in path:
            assert world.post(f"/sandbox/v1/payouts/{payout_id}/simulate", {"status": status}).status_code == 200
    return world, user_id


def test_the_amounts_in_the_summary_add_up(user_with_history: tuple[World, str]) -> None:
    world, user_id = user_with_history
    totals = summary(world, user_id)
    assert totals == {
        "user_id": user_id, "currency": "PKR", "balance": "117.50", "earned": "100.00", "spent": "10.00", "credited": "7.50",
        "advances": "8.00", "finals": "32.00", "payout_requested": "5.00", "payout_approved": "0.00", "payout_paid": "20.00",
        "available": "112.50",
    }  # fmt: skip
    received = sum(Decimal(totals[name]) for name in ("earned", "credited", "advances", "finals"))
    paid_out = sum(Decimal(totals[name]) for name in ("spent", "payout_approved", "payout_paid"))
    assert Decimal(totals["balance"]) == received - paid_out
    assert Decimal(totals["available"]) == Decimal(totals["balance"]) - Decimal(totals["payout_requested"])


def test_the_history_has_every_entry_with_its_running_balance(user_with_history: tuple[World, str]) -> None:
    world, user_id = user_with_history
    path = f"/api/v1/users/{user_id}/history"
    entries = world.get(path, limit=100).json()["data"]
    assert [(e["direction"], e["amount"], e["reason"]) for e in reversed(entries)] == [
        ("CREDIT", "100.00", "WALLET_EARN"), ("DEBIT", "10.00", "WALLET_SPEND"), ("CREDIT", "4.00", "WALLET_ADVANCE"),
        ("CREDIT", "4.00", "WALLET_ADVANCE"), ("CREDIT", "36.00", "WALLET_FINAL"), ("DEBIT", "4.00", "WALLET_CLAWBACK"),
        ("CREDIT", "7.00", "WALLET_CREDIT"), ("CREDIT", "0.50", "WALLET_CREDIT"), ("DEBIT", "20.00", "WALLET_PAYOUT"),
        ("DEBIT", "30.00", "WALLET_PAYOUT"), ("CREDIT", "30.00", "WALLET_GIVE_BACK"),
    ]  # fmt: skip
    balance = Decimal(0)
    for entry in reversed(entries):
        balance += Decimal(entry["amount"]) * (1 if entry["direction"] == "CREDIT" else -1)
        assert Decimal(entry["balance_after"]) == balance
    assert entries[0]["balance_after"] == summary(world, user_id)["balance"]
    merchant_entry = world.get("/api/v1/balance/history").json()["data"][0]
    assert list(entries[0]) == list(merchant_entry), "the fields must be those of the merchant's own history"
    assert {entry["account"] for entry in entries} == {"WALLET"}
    for limit in (1, 2, 3, 100):
        assert pages(world, path, limit) == entries
    (payout_id,) = {entry["payout_id"] for entry in entries if entry["reason"] == "WALLET_GIVE_BACK"}
    assert [e["reason"] for e in pages(world, path, 1, payout_id=payout_id)] == ["WALLET_GIVE_BACK", "WALLET_PAYOUT"]
    assert world.get(path, created_to=entries[-1]["created_at"]).json()["data"] == []
    assert pages(world, path, 3, created_from=entries[-1]["created_at"]) == entries
    other = make_user(world)
    assert world.get(f"/api/v1/users/{other}/history").json()["data"] == []
    assert world.get(f"/api/v1/users/{other}/history", payout_id=payout_id).json()["data"] == []


def test_transactions_of_all_types_are_listed_and_can_be_filtered_by_type(user_with_history: tuple[World, str]) -> None:
    world, user_id = user_with_history
    path = f"/api/v1/users/{user_id}/transactions"
    expected = [
        ("EARNED", "100.00"), ("SPENT", "10.00"), ("ADVANCE", "4.00"), ("ADVANCE", "4.00"), ("FINAL", "36.00"),
        ("FINAL", "-4.00"), ("CREDITED", "7.00"), ("CREDITED", "0.50"), ("PAYOUT", "20.00"), ("PAYOUT", "30.00"),
        ("PAYOUT", "5.00"), ("PAID_OUT", "20.00"), ("PAID_OUT", "30.00"), ("PAYOUT", "-30.00"), ("PAID_OUT", "-30.00"),
    ]  # fmt: skip
    found = world.get(path, limit=100).json()["data"]
    assert [(t["type"], t["amount"]) for t in reversed(found)] == expected
    assert [t["id"] for t in found] == sorted((t["id"] for t in found), reverse=True)
    for limit in (1, 4, 100):
        assert pages(world, path, limit) == found
    by_type = itertools.groupby(sorted(expected), key=lambda row: row[0])
    for kind, transactions in by_type:
        assert sorted((t["type"], t["amount"]) for t in pages(world, path, 1, type=kind)) == sorted(transactions)
    transfers = {entry["transfer_id"] for entry in pages(world, f"/api/v1/users/{user_id}/history", 100)}
    for transaction in found:
        if transaction["type"] in ("PAYOUT", "PAID_OUT"):
            assert world.payout(transaction["payout_id"])["user_id"] == user_id
            assert transaction["transfer_id"] is None
        else:
            assert transaction["transfer_id"] in transfers
    totals = summary(world, user_id)
    for kind, name in (("CREDITED", "credited"), ("ADVANCE", "advances"), ("FINAL", "finals"), ("PAID_OUT", "payout_paid")):
        amounts = [Decimal(t["amount"]) for t in found if t["type"] == kind]
        assert sum(amounts) == Decimal(totals[name])
    error = world.get(path, type="GIFT").json()["errors"][0]
    assert error["field"] == "type"
