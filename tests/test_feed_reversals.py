"""The sandbox's own feed reverses rows of payouts that end unpaid, so that the aggregator's pending amounts are right."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.domain.payout_states import REQUESTED, RETURNED, TRANSITIONS
from sandbox.domain.user import feed_rows, total_field_for
from sandbox.infrastructure.db.engine import close_pool, open_pool
from sandbox.users.aggregator.feed_clients import HttpVendor, OwnVendor
from sandbox.users.aggregator.poll import Poller
from sandbox.users.aggregator.vendor_rows import read_row
from sandbox.users.vendor_feed.service import FeedService
from tests.harness.vendor import Vendor, row
from tests.harness.world import Stack, World
from tests.test_aggregator import BOX, LATER, DrivenPoller, driven
from tests.test_users import DESTINATION, make_user, record, request_payout, summary
from tests.test_vendor_feed import new_key_header

__all__ = ["driven"]
AMOUNT = Decimal("30.00")
NEXT_STATUSES = {
    source: [target for before, target in TRANSITIONS if before == source] for source in {before for before, _ in TRANSITIONS}
}
CHOICES = st.lists(st.integers(0, 20), max_size=9)
"""For each change, the number of the transition to choose from the allowed ones."""


def path_for(choices: list[int]) -> list[str]:
    """Return an allowed sequence of statuses of a user's payout."""
    path = [REQUESTED]
    for choice in choices:
        options = NEXT_STATUSES.get(path[-1], [])
        if not options:
            break
        path.append(options[choice % len(options)])
    return path


@given(CHOICES)
def test_on_every_path_the_feeds_rows_sum_to_the_pending_and_paid_amounts(choices: list[int]) -> None:
    sums = {"PAYOUT": Decimal(0), "PAID_OUT": Decimal(0)}
    before = None
    for status in path_for(choices):
        after = total_field_for(status)
        for kind, amount in feed_rows(before, after, AMOUNT):
            sums[kind] += amount
        before = after
        pending = AMOUNT if after in ("requested", "approved") else Decimal(0)
        assert sums["PAYOUT"] - sums["PAID_OUT"] == pending
        assert sums["PAID_OUT"] == (AMOUNT if after == "paid" else 0)


async def poll(stack: Stack, merchant_id: str) -> None:
    """Make the aggregator read the merchant's whole feed now."""
    now = datetime.now(UTC)

    def clock() -> datetime:
        nonlocal now
        # Move past the rate limit, and past the lease of a worker that may have claimed the poll.
        now += timedelta(minutes=2)
        return now

    await open_pool(stack.database_url, 2)
    http = HttpVendor(())
    try:
        poller = Poller(BOX, OwnVendor(FeedService()), http, clock)
        assert await poller.poll(merchant_id)
    finally:
        await http.close()
        await close_pool()


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(CHOICES, min_size=4, max_size=12))
def test_the_aggregators_pending_amounts_equal_the_users_pending_payouts(stack: Stack, paths: list[list[int]]) -> None:
    with World.create(stack, opening_balance="1000000.00") as world:
        world.post("/sandbox/v1/clock/freeze", {"at": "2031-01-01T00:00:00Z"})
        # A payout to account 0004 takes no steps by itself.
        destination = {**DESTINATION, "account_number": "12345678900004"}
        users = []
        for choices in paths:
            users.append(make_user(world, destination=destination))
            record(world, users[-1], "EARNED", "100")
            payout_id = request_payout(world, users[-1], "30")["id"]
            for status in path_for(choices)[1:]:
                response = world.post(f"/sandbox/v1/payouts/{payout_id}/simulate", {"status": status})
                assert response.status_code == 200, response.text
        asyncio.run(poll(stack, world.merchant_id))
        waiting = {item["user_id"]: item["requested_payout"] for item in world.get("/aggregator/v1/payouts").json()["data"]}
        for user_id in users:
            totals = summary(world, user_id)
            pending = Decimal(totals["payout_requested"]) + Decimal(totals["payout_approved"])
            found = world.get(f"/aggregator/v1/users/{user_id}/payouts").json()["requested_payout"]
            assert Decimal(found) == pending
            assert Decimal(waiting.get(user_id, "0")) == pending
            balance = world.get(f"/aggregator/v1/users/{user_id}").json()
            assert balance["balance"] == str(100 - Decimal(totals["payout_paid"]))
        world.assert_clean()


def feed(world: World) -> list[tuple[str, str, str]]:
    """Return (type, amount, id) of the feed's rows, oldest first. Uses a new API key, which may make five calls a minute."""
    rows = world.client.get("/vendor/v1/transactions", headers=new_key_header(world)).json()["items"]
    return [(row["type"], row["amount"], row["id"]) for row in rows]


def without_ids(rows: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    return [row[:2] for row in rows]


def test_the_feed_has_reversals_for_returned_and_failed_payouts(world: World) -> None:
    world.post("/sandbox/v1/clock/freeze")
    user_id = make_user(world, destination={**DESTINATION, "account_number": "12345678900004"})
    record(world, user_id, "EARNED", "100")
    returned, failed = request_payout(world, user_id, "30")["id"], request_payout(world, user_id, "20")["id"]
    for status in ("PENDING", "SUCCESS", RETURNED):
        assert world.post(f"/sandbox/v1/payouts/{returned}/simulate", {"status": status}).status_code == 200
    for status in ("PENDING", "FAILED"):
        assert world.post(f"/sandbox/v1/payouts/{failed}/simulate", {"status": status}).status_code == 200
    assert world.post(f"/api/v1/payouts/{failed}/reinitiate").status_code == 200
    assert without_ids(feed(world)) == [
        ("earned", "100.00"), ("payout", "30.00"), ("payout", "20.00"), ("paid_out", "30.00"), ("payout", "-30.00"),
        ("paid_out", "-30.00"), ("payout", "-20.00"), ("payout", "20.00"),
    ]  # fmt: skip


VALID_ROW = {"id": "a", "userId": "074092", "createdAt": "2026-03-01T12:00:00.000Z", "type": "payout", "amount": 30}


@pytest.mark.parametrize("kind", ["payout", "paid_out"])
@pytest.mark.parametrize("amount", ["-30.00", -30, -30.0, "-0.01", "-999999999999.99"])
def test_a_vendors_reversal_is_read(kind: str, amount: object) -> None:
    assert read_row(json.dumps({**VALID_ROW, "type": kind, "amount": amount}).encode()).amount == Decimal(str(amount))


@pytest.mark.parametrize(
    ("kind", "amount"),
    [
        ("earned", -1), ("spent", "-1.00"), ("payout", 0), ("payout", "-0.00"), ("paid_out", "--1"), ("payout", "-"),
        ("payout", -1.234), ("payout", "-01"), ("paid_out", "-1000000000000"), ("payout", "- 1"),
    ],
)  # fmt: skip
def test_an_invalid_reversal_is_refused(kind: str, amount: object) -> None:
    with pytest.raises(ValueError, match="amount must be"):
        read_row(json.dumps({**VALID_ROW, "type": kind, "amount": amount}).encode())


async def test_a_vendors_reversals_count_once_in_any_order(driven: DrivenPoller) -> None:
    # The reversals come first, as from a vendor that lists the newest rows first.
    rows = [row(4, "paid_out", "-5.00"), row(3, "payout", -5), row(2, "paid_out", "5.00"), row(1, "payout", "5.00")]
    with Vendor(rows[:1]) as vendor:
        await driven.point_at(vendor.url)
        for shown in (rows[:1], rows[:2], rows, rows):
            vendor.rows = shown
            await driven.call()
    assert [fetch["outcome"] for fetch in await driven.fetches()] == ["SUCCEEDED"] * 4
    assert len(await driven.ids()) == 4
    assert driven.now > LATER
