"""The aggregator as an integrator sees it: over HTTP, with the sandbox's own workers."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from sandbox.infrastructure.db.engine import connection
from sandbox.users.aggregator.store import DUE_OWN
from tests.harness.vendor import START, Vendor, row
from tests.harness.waiting import until
from tests.harness.work import pooled
from tests.harness.world import Stack, World
from tests.test_aggregator import LATER
from tests.test_vendor_feed import add_rows, add_user


def balance(world: World, user: str) -> dict[str, Any]:
    """Return a user's aggregated balance, or {} if none of the user's rows has arrived yet."""
    response = world.get(f"/aggregator/v1/users/{user}")
    found: dict[str, Any] = response.json() if response.status_code == 200 else {}
    return found


def test_balances_of_the_specified_examples_are_right_with_our_own_feed(world: World) -> None:
    one, two, three = add_user(world, "074092"), add_user(world, "12"), add_user(world, "paid")
    kinds = [("EARNED", "100"), ("EARNED", "1000"), ("SPENT", "20"), ("PAYOUT", "500"), ("PAYOUT", "500"), ("PAID_OUT", "500")]
    add_rows(world, one, [(kind, amount, START) for kind, amount in kinds])
    add_rows(world, two, [("EARNED", "1.2", START), ("SPENT", "12", START), ("PAYOUT", "30", START)])
    add_rows(world, three, [("PAYOUT", "5", START), ("PAID_OUT", "5", START)])
    until(lambda: balance(world, "paid"), seconds=60)
    assert balance(world, "074092") == {
        "user_id": "074092", "balance": "580.00", "earned": "1100.00", "spent": "20.00", "payout": "1000.00",
        "paid_out": "500.00",
    }  # fmt: skip
    assert balance(world, "12")["balance"] == "-10.80"
    assert world.get("/aggregator/v1/users/074092/payouts").json() == {"user_id": "074092", "requested_payout": "500.00"}
    assert world.get("/aggregator/v1/users/paid/payouts").json()["requested_payout"] == "0.00"
    first = world.get("/aggregator/v1/payouts", limit=1).json()
    rest = world.get("/aggregator/v1/payouts", limit=1, cursor=first["next_cursor"]).json()
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert {(item["user_id"], item["requested_payout"]) for item in first["data"] + rest["data"]} == {
        ("074092", "500.00"), ("12", "30.00"),
    }  # fmt: skip
    fetches = world.get("/aggregator/v1/fetches").json()["data"]
    assert {fetch["outcome"] for fetch in fetches} == {"SUCCEEDED"}
    assert sum(fetch["new_rows"] for fetch in fetches) == 11


@pytest.mark.parametrize("vendor_user_id", ["a\u200cb", "a/b", "a\nb", "", "x" * 65])
def test_a_vendor_user_id_that_the_aggregator_cannot_serve_is_refused(world: World, vendor_user_id: str) -> None:
    body = {"name": "n", "vendor_user_id": vendor_user_id}
    response = world.post("/api/v1/users", body)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (400, "vendor_user_id")
    assert world.post("/api/v1/users/batch", {"users": [body]}).json()["results"][0]["status"] == 400


def test_unreadable_rows_of_our_own_feed_are_read_only_once(world: World) -> None:
    # The first id has every kind of character that is allowed. The second was allowed in an earlier version.
    odd = "a b?#%2F&~"
    one, two = add_user(world, odd), add_user(world, "a\u200cb")
    add_rows(world, one, [("EARNED", "1", START)])
    (last_id,) = add_rows(world, two, [("EARNED", "1", START)])
    until(lambda: world.get("/aggregator/v1/dead-letters").json()["data"], seconds=60)
    assert balance(world, quote(odd, safe=""))["earned"] == "1.00"
    found = world.stack.execute("SELECT last_id::text FROM vendor_cursors WHERE merchant_id = $1", world.merchant_id)
    assert found == [{"last_id": last_id}]

    async def due() -> set[str]:
        async with pooled(world.stack.database_url, 1), connection(world.merchant_id) as conn:
            return {record["merchant_id"] for record in await conn.fetch(DUE_OWN, LATER, 1_000_000)}

    assert world.merchant_id not in asyncio.run(due())


def test_unknown_users_are_not_found(world: World) -> None:
    for path in ("74092", "74092/payouts", "x" * 65, "%00", "a%0Ab"):
        assert world.get(f"/aggregator/v1/users/{path}").status_code == 404, path


def test_an_idle_merchant_is_never_polled(world: World) -> None:
    with Vendor([row(1)]) as vendor:  # noqa: SIM117 -- leaves a line for the comment
        # Once another merchant was polled, the search for due merchants has considered this one too.
        with World.create(world.stack) as other:
            other.client.put("/aggregator/v1/source", json={"url": vendor.url})
            until(lambda: balance(other, "074092"))
    assert world.get("/aggregator/v1/fetches").json()["data"] == []


@pytest.mark.slow
def test_in_real_time_no_minute_has_six_calls(world: World) -> None:
    with Vendor([row(n) for n in range(2500)]) as vendor:
        assert world.client.put("/aggregator/v1/source", json={"url": vendor.url}).status_code == 200
        until(lambda: balance(world, "074092").get("earned") == "2500.00", seconds=90)
        until(lambda: len(vendor.calls) >= 6, seconds=150, pause=0.5)
        times = [at for at, _, _ in vendor.calls]
        assert all(sixth - first >= 60 for first, sixth in zip(times, times[5:], strict=False))
    assert balance(world, "074092")["earned"] == "2500.00"


def test_vendor_headers_are_sent_to_the_vendor_and_never_shown(world: World) -> None:
    secret = "vendor-key-83c1"
    with Vendor([row(1)]) as vendor:
        body = {"url": vendor.url, "headers": {"X-API-KEY": secret}}
        response = world.client.put("/aggregator/v1/source", json=body)
        assert (
            response.json() == {"url": vendor.url, "header_names": ["X-API-KEY"]} == world.get("/aggregator/v1/source").json()
        )
        until(lambda: balance(world, "074092"))
        assert vendor.calls[0][2]["x-api-key"] == secret
    assert secret not in world.get("/aggregator/v1/fetches").text
    stored = world.stack.execute("SELECT headers FROM vendor_cursors WHERE merchant_id = $1", world.merchant_id)[0]["headers"]
    assert secret.encode() not in stored


def test_a_new_source_starts_from_scratch_but_keeps_the_recorded_calls(world: World) -> None:
    with Vendor([row(1), row(2, amount="bad")]) as one, Vendor([row(3, user="12")]) as two:
        world.client.put("/aggregator/v1/source", json={"url": one.url})
        until(lambda: balance(world, "074092"))
        world.client.put("/aggregator/v1/source", json={"url": two.url})
        until(lambda: balance(world, "12"))
        assert balance(world, "074092") == {}
        assert world.get("/aggregator/v1/dead-letters").json()["data"] == []
        assert len(world.get("/aggregator/v1/fetches").json()["data"]) == 2


def test_an_unreadable_row_becomes_a_dead_letter_that_can_be_replayed(world: World) -> None:
    with Vendor([row(1), row(2, amount="2,00")]) as vendor:
        world.client.put("/aggregator/v1/source", json={"url": vendor.url})
        until(lambda: balance(world, "074092"))
    letters = world.get("/aggregator/v1/dead-letters").json()["data"]
    assert len(letters) == 1
    assert '"2,00"' in letters[0]["raw"]
    assert letters[0]["reason"].startswith("amount must be")
    assert world.client.post("/aggregator/v1/dead-letters/replay").json() == {"replayed": 0, "remaining": 1}
    # Make the row readable, as a new version of the sandbox could.
    world.stack.execute(
        "UPDATE vendor_dead_letters SET raw = replace(raw, '2,00', '2.00') WHERE merchant_id = $1", world.merchant_id
    )
    assert world.client.post("/aggregator/v1/dead-letters/replay").json() == {"replayed": 1, "remaining": 0}
    assert world.client.post("/aggregator/v1/dead-letters/replay").json() == {"replayed": 0, "remaining": 0}
    assert balance(world, "074092")["earned"] == "3.00"


@pytest.mark.parametrize(
    "body",
    [
        {}, {"url": "ftp://x/"}, {"url": "http://169.254.169.254/latest"}, {"url": "http://10.0.0.1/"},
        {"url": "http://u:p@example.com/"}, {"url": "http://example.com/?key=1"}, {"url": "http://example.com/", "more": 1},
        {"url": "http://example.com/", "headers": {"Host": "x"}},
        {"url": "http://example.com/", "headers": {"X-A": "a\r\nB: c"}},
    ],
)  # fmt: skip
def test_invalid_sources_are_refused(world: World, body: dict[str, Any]) -> None:
    response = world.client.put("/aggregator/v1/source", json=body)
    assert (response.status_code, response.json()["code"]) == (400, "VALIDATION_ERROR")


def test_deleting_a_merchant_deletes_all_its_aggregator_data(stack: Stack) -> None:
    with World.create(stack) as world, Vendor([row(1), row(2, amount="bad")]) as vendor:
        world.client.put("/aggregator/v1/source", json={"url": vendor.url})
        until(lambda: balance(world, "074092"))
        headers = {"X-ADMIN-KEY": stack.admin_key}
        assert world.client.delete(f"/sandbox/v1/merchants/{world.merchant_id}", headers=headers).status_code == 204
        for table in ("cursors", "fetches", "transactions", "balances", "dead_letters"):
            assert not stack.execute(f"SELECT FROM vendor_{table} WHERE merchant_id = $1", world.merchant_id)
