"""The overview's statistics are exact for the rows that they cover, and bounded."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from sandbox.domain.ledger import AVAILABLE, FUNDING, LOCKED, SETTLEMENT
from sandbox.payouts.balance.flows import MAX_DAYS, MAX_TRANSFERS
from sandbox.worlds.overview import service
from sandbox.worlds.overview.statistics import (
    MAX_BUCKETS,
    MAX_POINTS,
    Movement,
    SentAttempt,
    attempt_statistics,
    balance_points,
)
from tests.harness.command import invoke
from tests.harness.receiver import Received, Receiver
from tests.harness.world import Stack, World

T = datetime(2031, 1, 1, tzinfo=UTC)


def overview(world: World) -> dict[str, Any]:
    response = world.get("/sandbox/v1/overview")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_a_new_merchant_has_its_balance_and_zeros(stack: Stack) -> None:
    with World.create(stack) as world:
        found = overview(world)
    nothing = {"rows": 0, "since": None, "is_complete": True}
    assert [found[part]["covers"] for part in ("payouts", "balance", "deliveries")] == [nothing] * 3
    assert {(one["count"], one["amount"]) for one in found["payouts"]["by_status"]} == {(0, "0.00")}
    assert {one["count"] for one in found["deliveries"]["by_status"]} == {0}
    assert found["balance"]["points"] == [{"at": found["now"], "available": "0.00", "locked": "0.00"}]
    assert found["deliveries"]["attempts"] == {
        "since": None, "succeeded": 0, "failed": 0, "success_rate": None, "latency": None, "bucket_seconds": None,
        "buckets": [],
    }  # fmt: skip


def test_payouts_are_counted_by_status_and_failure_code_and_the_balance_follows_each_transfer(world: World) -> None:
    world.client.post("/sandbox/v1/clock/freeze", json={"at": "2031-01-01T00:00:00.000Z"})
    start = world.balance()
    for suffix, amount in (("0001", "1.00"), ("0007", "2.00"), ("0007", "3.50"), ("0003", "4.00"), ("0004", "5.00")):
        world.create_payout(suffix, amount=amount)
    world.client.post("/sandbox/v1/clock/advance", json={"seconds": 60})
    world.post("/sandbox/v1/balance/top-up", {"amount": "7.00"})
    found = overview(world)
    payouts = found["payouts"]
    assert payouts["covers"] == {"rows": 5, "since": "2031-01-01T00:00:00.000Z", "is_complete": True}
    assert [(one["status"], one["count"], one["amount"]) for one in payouts["by_status"] if one["count"]] == [
        ("PENDING", 1, "5.00"), ("SUCCESS", 1, "1.00"), ("FAILED", 3, "9.50"),
    ]  # fmt: skip
    assert payouts["by_failure_code"] == [
        {"failure_code": "ACCOUNT_CLOSED", "count": 2, "amount": "5.50"},
        {"failure_code": "BANK_REJECTED", "count": 1, "amount": "4.00"},
    ]
    bank = {"bank_code": "HBL", "wallet_code": None}
    assert payouts["by_destination_and_code"] == [
        {**bank, "failure_code": "ACCOUNT_CLOSED", "count": 2}, {**bank, "failure_code": "BANK_REJECTED", "count": 1},
    ]  # fmt: skip
    assert [(one["status"], one["count"]) for one in payouts["open"] if one["count"]] == [("PENDING", 1)]
    points = found["balance"]["points"]
    entries = world.get("/api/v1/balance/history", limit=100).json()["data"]
    assert found["balance"]["covers"]["rows"] == len(points) == len({entry["transfer_id"] for entry in entries})
    for point, account in ((points[-1], "AVAILABLE"), (points[-2], "LOCKED")):
        (newest, *_) = [entry for entry in entries if entry["account"] == account]
        assert point[account.lower()] == newest["balance_after"]
    assert (points[-1]["at"], points[-1]["available"], points[-1]["locked"]) == ("2031-01-01T00:01:00.000Z", *world.balance())
    assert (points[0]["available"], points[0]["locked"]) == start


def test_deliveries_are_counted_by_status_and_attempts_by_outcome(world: World, receiver: Receiver) -> None:
    def respond(received: Received) -> tuple[int, dict[str, str], bytes]:
        return (200 if received.event["type"] == "payout.created" else 500), {}, b""

    receiver.respond = respond
    body = {"url": receiver.url, "event_types": ["payout.created", "payout.processing"], "retry_profile": "fast"}
    endpoint = world.post("/api/v1/webhook-endpoints", body).json()["id"]
    world.client.post("/sandbox/v1/clock/freeze", json={})
    world.create_payout("0001")
    world.client.post("/sandbox/v1/clock/advance", json={"seconds": 3600})
    world.patch(f"/api/v1/webhook-endpoints/{endpoint}", {"status": "DISABLED"})
    world.create_payout("0004")
    deliveries = overview(world)["deliveries"]
    assert {one["status"]: one["count"] for one in deliveries["by_status"]} == {
        "PENDING": 0, "SUCCEEDED": 1, "FAILED": 1, "PAUSED": 1,
    }  # fmt: skip
    attempts = deliveries["attempts"]
    failed = len([received for received in receiver.received if received.event["type"] == "payout.processing"])
    assert (attempts["succeeded"], attempts["failed"]) == (1, failed)
    assert attempts["success_rate"] == round(1 / (1 + failed), 4)
    assert sum(bucket["succeeded"] + bucket["failed"] for bucket in attempts["buckets"]) == 1 + failed
    assert 0 <= attempts["latency"]["p50_ms"] <= attempts["latency"]["p95_ms"] <= attempts["latency"]["max_ms"]


def test_the_newest_rows_are_covered_and_open_payouts_are_capped(world: World, stack: Stack) -> None:
    """`covers` says that older rows exist. The rows are inserted, because creating as many would take long."""
    stack.execute(
        """
        INSERT INTO payouts (merchant_id, id, merchant_reference, amount, currency, dest_type, bank_code, account_number,
            status, scenario, attempts, metadata, step, changes, request_id, created_at, updated_at)
        SELECT $1, ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'old-' || n, 1, 'PKR', 'BANK', 'HBL', '1',
            'ON_HOLD', 'on_hold', 1, '{}', 2, 1, 'r', now(), now() FROM generate_series(1, $2::int) n
        """,
        world.merchant_id,
        service.MAX_ROWS + 1,
    )
    world.create_payout("0004")
    payouts = overview(world)["payouts"]
    assert (payouts["covers"]["rows"], payouts["covers"]["is_complete"]) == (service.MAX_ROWS, False)
    counted = {one["status"]: one["count"] for one in payouts["by_status"] if one["count"]}
    assert counted == {"PENDING": 1, "ON_HOLD": service.MAX_ROWS - 1}
    assert {one["status"]: (one["count"], one["is_capped"]) for one in payouts["open"] if one["count"]} == {
        "PENDING": (1, False), "ON_HOLD": (service.MAX_ROWS, True),
    }  # fmt: skip


def test_flows_sum_up_each_days_transfers_and_cover_a_bounded_number(world: World, stack: Stack) -> None:
    world.post("/sandbox/v1/clock/freeze", {"at": "2031-01-01T23:59:00Z"})
    for amount in ("1.00", "2.50"):
        world.create_payout("0012", amount=amount)
    world.post("/sandbox/v1/clock/advance", {"seconds": 3600})
    flows = world.get("/sandbox/v1/balance/flows", created_from="2031-01-01T23:59:00Z").json()
    pair = {"count": 2, "amount": "3.50"}
    assert flows == {
        "currency": "PKR", "since": "2031-01-01T23:59:00.000Z", "is_complete": True,
        "days": [
            {"day": "2031-01-02", "flows": [{"from_account": "SETTLEMENT", "to_account": "AVAILABLE", **pair}]},
            {"day": "2031-01-01", "flows": [
                {"from_account": "AVAILABLE", "to_account": "LOCKED", **pair},
                {"from_account": "LOCKED", "to_account": "SETTLEMENT", **pair},
            ]},
        ],
    }  # fmt: skip
    earlier = world.get("/sandbox/v1/balance/flows", created_to="2031-01-02T00:00:00Z").json()
    assert earlier["days"][0] == flows["days"][1]
    stack.execute(
        """
        INSERT INTO transfers (merchant_id, id, debit_account, credit_account, amount, debit_balance_after,
            credit_balance_after, reason, description, created_at)
        SELECT $1, ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'FUNDING', 'AVAILABLE', 1, 0, 0, 'TOP_UP', '',
            '2030-12-01'::timestamptz - make_interval(days => n % 40) FROM generate_series(1, $2::int) n
        """,
        world.merchant_id,
        MAX_TRANSFERS,
    )
    bounded = world.get("/sandbox/v1/balance/flows").json()
    assert (bounded["is_complete"], len(bounded["days"])) == (False, MAX_DAYS)
    assert sum(flow["count"] for day in bounded["days"] for flow in day["flows"]) <= MAX_TRANSFERS


@pytest.mark.parametrize("length", [1, 2, MAX_POINTS - 1, MAX_POINTS, MAX_POINTS + 1, 1000])
def test_the_balance_has_at_most_60_points_from_the_oldest_to_the_current_one(length: int) -> None:
    available, locked = Decimal(0), Decimal(0)
    states, moved = [], []
    for n in range(length):
        debit, credit = ((FUNDING, AVAILABLE), (AVAILABLE, LOCKED), (LOCKED, SETTLEMENT))[n % 3]
        available += (credit == AVAILABLE) - (debit == AVAILABLE)
        locked += (credit == LOCKED) - (debit == LOCKED)
        states.append(((T + timedelta(seconds=n)).isoformat(timespec="milliseconds")[:-6] + "Z", available, locked))
        moved.append(Movement(T + timedelta(seconds=n), debit, credit, Decimal(1)))
    points = [(point.at, point.available, point.locked) for point in balance_points(moved[::-1], T, available, locked)]
    assert len(points) == min(length, MAX_POINTS)
    assert (points[0], points[-1]) == (states[0], states[-1])
    assert set(points) <= set(states)
    assert points == sorted(points)


@pytest.mark.parametrize("seconds", [0, 0.5, 29, 30, 31, 3600, 86_400, 40 * 86_400, 400 * 86_400])
def test_attempts_are_in_at_most_30_buckets_of_equal_width_without_gaps(seconds: float) -> None:
    attempts = [SentAttempt(T + timedelta(seconds=seconds * n / 100 + 0.7), n % 4 != 0, n) for n in range(101)]
    found = attempt_statistics(reversed(attempts))
    assert (found.succeeded, found.failed, found.success_rate) == (75, 26, round(75 / 101, 4))
    assert found.latency is not None
    assert (found.latency.p50_ms, found.latency.p95_ms, found.latency.max_ms) == (50, 95, 100)
    assert 1 <= len(found.buckets) <= MAX_BUCKETS
    assert sum(bucket.succeeded + bucket.failed for bucket in found.buckets) == 101
    assert found.buckets[0].succeeded + found.buckets[0].failed > 0
    assert found.buckets[-1].succeeded + found.buckets[-1].failed > 0
    times = [datetime.fromisoformat(bucket.at) for bucket in found.buckets]
    assert {later - earlier for earlier, later in pairwise(times)} <= {timedelta(seconds=found.bucket_seconds or 0)}
    for position, start in enumerate(times):
        end = start + timedelta(seconds=found.bucket_seconds or 0)
        inside = [attempt for attempt in attempts if start <= attempt.at < end]
        assert found.buckets[position].succeeded == sum(attempt.is_success for attempt in inside)


def test_the_command_prints_the_statistics(world: World) -> None:
    world.create_payout("0004")
    shown = invoke("overview", "--url", world.stack.api_url, "--api-key", world.api_key).stdout
    available, locked = world.balance()
    assert "Newest 1 payouts:\n  PENDING                  1  100.00\nNot final: 1.\n" in shown
    assert f"Balance: {available} available, {locked} locked." in shown
