"""Each built-in scenario runs over HTTP with the documented balances, timeline, events and ledger entries."""

import pytest

from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World

# Balances: (available, locked)
SETTLED = ("999900.00", "0.00")
RELEASED = ("1000000.00", "0.00")
LOCKED = ("999900.00", "100.00")

# (suffix, scenario name, seconds to wait before each change, path, failure_code, attempts, balances at the end)
SCENARIOS = [
    ("0001", "success", [], ["PENDING", "PROCESSING", "SUCCESS"], None, 1, SETTLED),
    ("0002", "retry_then_success", [2], ["PENDING", "PROCESSING", "RETRY", "PROCESSING", "SUCCESS"], None, 2, SETTLED),
    ("0003", "failed", [], ["PENDING", "PROCESSING", "FAILED"], "BANK_REJECTED", 1, RELEASED),
    ("0005", "on_hold", [], ["PENDING", "PROCESSING", "ON_HOLD"], None, 1, LOCKED),
    ("0006", "account_not_found", [], ["PENDING", "PROCESSING", "FAILED"], "ACCOUNT_NOT_FOUND", 1, RELEASED),
    ("0007", "account_closed", [], ["PENDING", "PROCESSING", "FAILED"], "ACCOUNT_CLOSED", 1, RELEASED),
    ("0008", "account_blocked", [], ["PENDING", "PROCESSING", "FAILED"], "ACCOUNT_BLOCKED", 1, RELEASED),
    ("0009", "name_mismatch", [], ["PENDING", "PROCESSING", "FAILED"], "NAME_MISMATCH", 1, RELEASED),
    ("0010", "limit_exceeded", [], ["PENDING", "PROCESSING", "FAILED"], "LIMIT_EXCEEDED", 1, RELEASED),
    (
        "0011", "bank_unavailable", [2, 4, 8],
        ["PENDING", "PROCESSING", *["RETRY", "PROCESSING"] * 3, "FAILED"], "BANK_UNAVAILABLE", 4, RELEASED,
    ),
    ("0012", "returned", [60], ["PENDING", "PROCESSING", "SUCCESS", "RETURNED"], "RETURNED_BY_BANK", 1, RELEASED),
    ("0013", "slow_success", [30], ["PENDING", "PROCESSING", "SUCCESS"], None, 1, SETTLED),
    ("0014", "slow_failure", [30], ["PENDING", "PROCESSING", "FAILED"], "TIMEOUT", 1, RELEASED),
    ("9999", "success", [], ["PENDING", "PROCESSING", "SUCCESS"], None, 1, SETTLED),
]  # fmt: skip
EVENTS = {
    "PENDING": "payout.created", "PROCESSING": "payout.processing", "RETRY": "payout.retrying", "SUCCESS": "payout.succeeded",
    "ON_HOLD": "payout.on_hold", "IN_REVIEW": "payout.in_review", "FAILED": "payout.failed", "RETURNED": "payout.returned",
}  # fmt: skip


@pytest.mark.parametrize(("suffix", "name", "waits", "path", "failure_code", "attempts", "balances"), SCENARIOS)
def test_the_account_suffix_selects_the_scenario(
    world: World,
    receiver: Receiver,
    suffix: str,
    name: str,
    waits: list[int],
    path: list[str],
    failure_code: str | None,
    attempts: int,
    balances: tuple[str, str],
) -> None:
    secret = world.post("/api/v1/webhook-endpoints", {"url": receiver.url}).json()["secret"]
    created = world.create_payout(suffix)
    assert (created["status"], created["scenario"]) == ("PENDING", name)
    for number, seconds in enumerate(waits):
        # A wait starts when the payout reaches the status before it: the n-th RETRY, or the second to last status of the path.
        reached = 3 + 2 * number if "RETRY" in path else len(path) - 1
        until(lambda reached=reached: len(world.path_of(created["id"])) >= reached)
        world.shift_clock(seconds)
    done = world.wait_for(created["id"], path[-1])

    assert world.path_of(created["id"]) == path
    assert (done["failure_code"], done["attempts"]) == (failure_code, attempts)
    assert (done["psp_reference"] is not None) == ("SUCCESS" in path)
    assert world.balance() == balances
    # Deliveries run in parallel, so events can arrive in any order.
    events = until(lambda: (found := receiver.events(created["id"])) and len(found) >= len(path) and found)
    assert sorted(event["type"] for event in events) == sorted(EVENTS[state] for state in path)
    for received in receiver.received:
        received.verify(secret)
    entries = world.get("/api/v1/balance/history", payout_id=created["id"]).json()["data"]
    expected = ["PAYOUT_LOCK", "PAYOUT_LOCK"]
    expected += {"SUCCESS": ["PAYOUT_SETTLE"], "FAILED": ["PAYOUT_RELEASE"] * 2}.get(path[-1], [])
    expected += ["PAYOUT_SETTLE", "PAYOUT_RETURN"] if path[-1] == "RETURNED" else []
    assert sorted(entry["reason"] for entry in entries) == sorted(expected)
    world.assert_clean()


def test_suffix_0004_stays_pending_until_cancelled(world: World) -> None:
    payout = world.create_payout("0004")
    assert payout["scenario"] == "pending"
    # A later payout has completed, so the worker has also seen this one.
    world.wait_for(world.create_payout("0001")["id"], "SUCCESS")
    assert world.path_of(payout["id"]) == ["PENDING"]
    cancelled = world.post(f"/api/v1/payouts/{payout['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "CANCELLED")
    assert world.balance() == ("999900.00", "0.00")
    world.assert_clean()


@pytest.mark.parametrize(
    ("suffix", "action", "path"),
    [
        ("0001", "approve", ["PENDING", "PROCESSING", "IN_REVIEW", "PROCESSING", "SUCCESS"]),
        ("0003", "approve", ["PENDING", "PROCESSING", "IN_REVIEW", "PROCESSING", "FAILED"]),
        ("0001", "reject", ["PENDING", "PROCESSING", "IN_REVIEW", "FAILED"]),
    ],
)
def test_a_large_amount_waits_for_review(world: World, suffix: str, action: str, path: list[str]) -> None:
    payout = world.create_payout(suffix, amount="100000.00")
    assert payout["scenario"] == "in_review"
    world.wait_for(payout["id"], "IN_REVIEW")
    assert world.patch(f"/api/v1/payouts/{payout['id']}/{action}").status_code == 200
    done = world.wait_for(payout["id"], path[-1])
    assert world.path_of(payout["id"]) == path
    if action == "reject":
        assert done["failure_code"] == "REVIEW_REJECTED"
    world.assert_clean()


def test_just_below_the_review_amount_the_suffix_selects_the_scenario(world: World) -> None:
    assert world.create_payout("0001", amount="99999.99")["scenario"] == "success"


@pytest.mark.parametrize(
    ("action", "path"),
    [("approve", ["REQUESTED", "PENDING", "PROCESSING", "SUCCESS"]), ("reject", ["REQUESTED", "REJECTED"])],
)
def test_a_payout_that_needs_approval_waits_with_its_funds_locked(world: World, action: str, path: list[str]) -> None:
    payout = world.create_payout(requires_approval=True)
    assert payout["status"] == "REQUESTED"
    assert world.balance() == ("999900.00", "100.00")
    assert world.patch(f"/api/v1/payouts/{payout['id']}/{action}").status_code == 200
    world.wait_for(payout["id"], path[-1])
    assert world.path_of(payout["id"]) == path
    world.assert_clean()


def test_a_failed_payout_can_be_reinitiated_and_locks_its_funds_again(world: World) -> None:
    payout = world.create_payout("0003")
    world.wait_for(payout["id"], "FAILED")
    again = world.post(f"/api/v1/payouts/{payout['id']}/reinitiate")
    assert (again.json()["status"], again.json()["failure_code"]) == ("PENDING", None)
    world.wait_for(payout["id"], "FAILED")
    assert world.path_of(payout["id"]) == ["PENDING", "PROCESSING", "FAILED"] * 2
    assert world.balance() == ("1000000.00", "0.00")
    world.assert_clean()
