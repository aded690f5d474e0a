"""The aggregator against vendors that are slow, refuse, repeat and break off: all there once, within the limit."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from typing import Any
from urllib.parse import quote

import pytest

from sandbox.aggregator.clients import HttpVendor, OwnVendor
from sandbox.aggregator.poll import Poller
from sandbox.aggregator.store import DUE_OWN, FETCHES_KEPT, MAX_DEAD_LETTERS, Claim, Outcome, claim_poll, record_fetch
from sandbox.db.engine import close_pool, connection, open_pool
from sandbox.domain.address_guard import Network
from sandbox.feed.service import FeedService
from sandbox.infrastructure.secrets_at_rest import SecretBox
from tests.harness.vendor import START, Fault, Vendor, row
from tests.harness.waiting import until
from tests.harness.world import Stack, World
from tests.test_vendor_feed import add_rows, add_user

LATER = datetime(2100, 1, 1, tzinfo=UTC)
"""Where injected time begins: the sandbox's own workers, in the present, leave these polls alone."""
MINUTE = timedelta(seconds=60)
LOOPBACK: list[Network] = [IPv4Network("127.0.0.0/8")]
BOX = SecretBox(b"k" * 32)


class Driven:
    """A poller whose time goes on only as far as the next poll."""

    def __init__(self, merchant_id: str) -> None:
        self.merchant_id = merchant_id
        self.now = LATER
        self.http = HttpVendor(LOOPBACK)
        self.poller = self.over(self.http)
        self.calls: list[datetime] = []

    def over(self, http: HttpVendor) -> Poller:
        """A poller in this one's time that reads vendors otherwise."""
        return Poller(BOX, OwnVendor(FeedService()), http, lambda: self.now)

    async def point_at(self, url: str) -> None:
        """Read from this address, from LATER on."""
        async with connection() as conn:
            await conn.execute(
                "INSERT INTO vendor_cursors (merchant_id, url, page, failures, next_poll_at, updated_at) "
                "VALUES ($1, $2, 1, 0, $3, $3)", self.merchant_id, url, LATER,
            )  # fmt: skip

    async def call(self) -> None:
        """Let the time come for the next call, and make it."""
        while True:
            async with connection() as conn:
                due = await conn.fetchval("SELECT next_poll_at FROM vendor_cursors WHERE merchant_id = $1", self.merchant_id)
            self.now = max(self.now, due)
            if await self.poller.poll(self.merchant_id):
                self.calls.append(self.now)
                return

    async def fetches(self) -> list[dict[str, Any]]:
        """The record of calls, oldest first."""
        async with connection() as conn:
            found = await conn.fetch("SELECT * FROM vendor_fetches WHERE merchant_id = $1 ORDER BY id", self.merchant_id)
        return [dict(record) for record in found]

    async def ids(self) -> list[str]:
        """The vendor's ids of all rows taken."""
        async with connection() as conn:
            found = await conn.fetch(
                "SELECT vendor_id FROM vendor_transactions WHERE merchant_id = $1 ORDER BY vendor_id", self.merchant_id
            )
        return [record["vendor_id"] for record in found]

    async def earned(self) -> dict[str, str]:
        """User → earned, as kept ready."""
        async with connection() as conn:
            found = await conn.fetch("SELECT user_id, earned FROM vendor_balances WHERE merchant_id = $1", self.merchant_id)
        return {record["user_id"]: str(record["earned"]) for record in found}

    def assert_within_the_limit(self) -> None:
        """Never more than five calls in any sixty seconds."""
        assert all(sixth - first >= MINUTE for first, sixth in zip(self.calls, self.calls[5:], strict=False))


@pytest.fixture
async def driven(stack: Stack, world: World) -> AsyncIterator[Driven]:
    """A poller in injected time, for this test's merchant."""
    await open_pool(stack.database_url, 4)
    driven = Driven(world.merchant_id)
    try:
        yield driven
    finally:
        await driven.http.close()
        await close_pool()


async def test_2500_rows_take_three_calls_or_more_and_never_six_in_a_minute(driven: Driven) -> None:
    with Vendor([row(n) for n in range(2500)]) as vendor:
        await driven.point_at(vendor.url)
        for _ in range(3):
            await driven.call()
        assert [int(query["page"]) for _, query, _ in vendor.calls] == [1, 2, 3]
        assert {query["limit"] for _, query, _ in vendor.calls} == {"1000"}
        assert len(await driven.ids()) == 2500
        assert await driven.earned() == {"074092": "2500.00"}
        for _ in range(20):
            await driven.call()
    driven.assert_within_the_limit()
    assert await driven.earned() == {"074092": "2500.00"}, "reading on changes nothing"
    assert len(await driven.fetches()) == 23


async def test_whatever_the_vendor_does_all_rows_are_there_once(driven: Driven) -> None:
    faults: list[Fault | None] = [
        "slow", "500", None, "429", "break off", "repeat", "short", "not json", None, "redirect", "huge", "drop", "repeat",
    ]  # fmt: skip
    with Vendor([row(n) for n in range(2500)], faults) as vendor:
        await driven.point_at(vendor.url)
        # Only for the slow one: this vendor lives in this process, and a moment in which all of it stands is no fault of its.
        impatient = HttpVendor(LOOPBACK, 1)
        patient, driven.poller = driven.poller, driven.over(impatient)
        await driven.call()
        await impatient.close()
        driven.poller = patient
        while vendor.faults:
            await driven.call()
        for _ in range(3):
            await driven.call()
        vendor.released.set()
        assert len(vendor.calls) == len(driven.calls), "every call that the vendor saw is counted"
    assert len(await driven.ids()) == 2500
    assert await driven.earned() == {"074092": "2500.00"}
    driven.assert_within_the_limit()
    said = [fetch["error"] for fetch in await driven.fetches() if fetch["outcome"] == "FAILED"]
    assert said[:2] == ["timed out after 1 s", "the vendor responded with 500"]
    assert "the vendor responded with 429" in said
    assert "the response broke off" in said
    assert "the vendor responded with 302" in said
    assert "the response is larger than 2097152 bytes" in said
    assert len(said) == 9


async def test_a_failed_page_is_asked_for_again_later_each_time_and_as_late_as_the_vendor_asks(driven: Driven) -> None:
    with Vendor([row(1)], ["500", "500", "429"]) as vendor:
        await driven.point_at(vendor.url)
        for _ in range(4):
            await driven.call()
    waits = [(after - before).total_seconds() for before, after in zip(driven.calls, driven.calls[1:], strict=False)]
    assert waits == [20, 40, 90]
    assert await driven.ids() == ["row-1"]


async def test_rows_added_later_are_read_also_with_the_time_of_the_last_one(driven: Driven) -> None:
    with Vendor([row(1), row(2)]) as vendor:
        await driven.point_at(vendor.url)
        await driven.call()
        vendor.rows += [row(3, at=START + timedelta(seconds=2)), row(4, user="12", amount=1.5)]
        await driven.call()
        assert driven.calls[1] - driven.calls[0] == timedelta(seconds=20)
        assert await driven.earned() == {"074092": "3.00", "12": "1.50"}
        # A row that the vendor shows late, within the overlap.
        vendor.rows.append(row(5, at=START - timedelta(seconds=30)))
        await driven.call()
    assert await driven.ids() == [f"row-{n}" for n in range(1, 6)]


async def test_newest_first_with_rows_added_between_pages_skips_none(driven: Driven) -> None:
    with Vendor([row(n) for n in range(1500)][::-1]) as vendor:
        await driven.point_at(vendor.url)
        await driven.call()
        vendor.rows = [row(n) for n in range(1500, 1900)][::-1] + vendor.rows
        for _ in range(3):
            await driven.call()
    assert len(await driven.ids()) == 1900
    assert await driven.earned() == {"074092": "1900.00"}


async def test_newest_first_with_an_empty_page_in_the_middle_skips_none(driven: Driven) -> None:
    with Vendor([row(n) for n in range(2500)][::-1]) as vendor:
        await driven.point_at(vendor.url)
        await driven.call()
        rows, vendor.rows = vendor.rows, []
        await driven.call()
        vendor.rows = rows
        for _ in range(3):
            await driven.call()
        assert [int(query["page"]) for _, query, _ in vendor.calls] == [1, 2, 1, 2, 3]
    assert await driven.earned() == {"074092": "2500.00"}
    said = [(fetch["status"], fetch["error"]) for fetch in await driven.fetches() if fetch["outcome"] == "FAILED"]
    assert said == [(200, "the vendor had 2 pages or more and now has 0; reading starts over")]


async def test_a_time_that_is_none_stops_no_reading(driven: Driven) -> None:
    with Vendor([row(1, at=datetime(1, 1, 1, tzinfo=UTC))]) as vendor:
        await driven.point_at(vendor.url)
        await driven.call()
        vendor.rows.append(row(2))
        await driven.call()
    assert await driven.ids() == ["row-2"]
    assert [(fetch["outcome"], fetch["dead_letters"]) for fetch in await driven.fetches()] == [("SUCCEEDED", 1)] * 2


async def test_a_defect_of_ours_is_recorded_and_waits_longer_each_time(driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object, **__: object) -> None:
        raise OverflowError

    with Vendor([row(1)]) as vendor:
        await driven.point_at(vendor.url)
        with monkeypatch.context() as patched:
            patched.setattr("sandbox.aggregator.poll.after_page", defect)
            for _ in range(2):
                await driven.call()
        await driven.call()
    waits = [(after - before).total_seconds() for before, after in zip(driven.calls, driven.calls[1:], strict=False)]
    assert waits == [20, 40]
    fetches = [(fetch["outcome"], fetch["error"]) for fetch in await driven.fetches()]
    assert fetches == [("FAILED", "the page could not be processed (OverflowError)")] * 2 + [("SUCCEEDED", None)]
    assert await driven.ids() == ["row-1"]


async def test_several_pollers_at_once_make_one_call(driven: Driven) -> None:
    with Vendor([row(1)]) as vendor:
        await driven.point_at(vendor.url)
        made = await asyncio.gather(*(driven.poller.poll(driven.merchant_id) for _ in range(8)))
        assert made.count(True) == len(vendor.calls) == 1


async def test_a_worker_that_dies_in_a_call_has_spent_it_and_its_page_is_asked_for_again(driven: Driven) -> None:
    with Vendor([row(1)]) as vendor:
        await driven.point_at(vendor.url)
        dead: list[Claim] = []
        for _ in range(5):
            claim = await claim_poll(driven.merchant_id, BOX, driven.now)
            assert claim is not None
            dead.append(claim)
            driven.calls.append(driven.now)
            assert await claim_poll(driven.merchant_id, BOX, driven.now) is None, "it is leased"
            driven.now += timedelta(seconds=30)
        await driven.call()
        # What the dead worker comes with after all is not taken: another has gone on meanwhile.
        assert not await record_fetch(dead[4], Outcome(driven.now, 200), dead[4].cursor, LATER, None)
    assert await driven.ids() == ["row-1"]
    driven.assert_within_the_limit()
    assert [fetch["outcome"] for fetch in await driven.fetches()] == ["FAILED"] * 5 + ["SUCCEEDED"]


async def test_the_record_of_calls_is_kept_for_a_week(driven: Driven) -> None:
    with Vendor([row(1)]) as vendor:
        await driven.point_at(vendor.url)
        await driven.call()
        driven.now += FETCHES_KEPT - MINUTE
        await driven.call()
        assert len(await driven.fetches()) == 2
        driven.now += 2 * MINUTE
        await driven.call()
        assert len(await driven.fetches()) == 2, "the first has gone"


async def fill_dead_letters(driven: Driven, count: int) -> None:
    async with connection() as conn:
        await conn.execute(
            "INSERT INTO vendor_dead_letters (merchant_id, id, digest, raw, reason, created_at) "
            "SELECT $1, gen_random_uuid(), decode(lpad(to_hex(n), 64, '0'), 'hex'), '{}', 'r', $2 "
            "FROM generate_series(1, $3::int) n", driven.merchant_id, LATER, count,
        )  # fmt: skip


async def test_too_many_rows_that_cannot_be_understood_stop_the_reading_and_lose_nothing(driven: Driven) -> None:
    with Vendor([row(1, amount="much"), row(2)]) as vendor:
        await driven.point_at(vendor.url)
        await fill_dead_letters(driven, MAX_DEAD_LETTERS)
        await driven.call()
        assert await driven.ids() == []
        async with connection() as conn:
            await conn.execute("DELETE FROM vendor_dead_letters WHERE merchant_id = $1", driven.merchant_id)
        await driven.call()
    assert await driven.ids() == ["row-2"]
    assert [fetch["dead_letters"] for fetch in await driven.fetches()] == [0, 1]


async def test_what_is_kept_already_needs_no_room(driven: Driven) -> None:
    with Vendor([row(1, amount="much"), row(2)]) as vendor:
        await driven.point_at(vendor.url)
        await driven.call()
        await fill_dead_letters(driven, MAX_DEAD_LETTERS - 1)
        vendor.rows.append(row(3))
        await driven.call()
        assert await driven.ids() == ["row-2", "row-3"]
        vendor.rows += [row(4, amount="more"), row(5)]
        await driven.call()
    assert await driven.ids() == ["row-2", "row-3"]
    assert (await driven.fetches())[-1]["error"].startswith("1 more of its rows cannot be parsed")


# ---- over HTTP, with the sandbox's own workers


def balance(world: World, user: str) -> dict[str, Any]:
    """A user's aggregated balance, or {} before any row of it came."""
    answer = world.get(f"/aggregator/v1/users/{user}")
    found: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
    return found


def test_the_challenges_examples_come_out_of_our_own_feed(world: World) -> None:
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
def test_a_user_whom_our_own_aggregator_could_not_tell_of_is_not_made(world: World, vendor_user_id: str) -> None:
    body = {"name": "n", "vendor_user_id": vendor_user_id}
    answer = world.post("/api/v1/users", body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "vendor_user_id")
    assert world.post("/api/v1/users/batch", {"users": [body]}).json()["results"][0]["status"] == 400


def test_own_rows_that_cannot_be_understood_are_read_once_and_no_more(world: World) -> None:
    # A user who was made when that was taken; and one who is called by all that is still taken.
    odd = "a b?#%2F&~"
    one, two = add_user(world, odd), add_user(world, "a\u200cb")
    add_rows(world, one, [("EARNED", "1", START)])
    (last_id,) = add_rows(world, two, [("EARNED", "1", START)])
    until(lambda: world.get("/aggregator/v1/dead-letters").json()["data"], seconds=60)
    assert balance(world, quote(odd, safe=""))["earned"] == "1.00"
    found = world.stack.execute("SELECT last_id::text FROM vendor_cursors WHERE merchant_id = $1", world.merchant_id)
    assert found == [{"last_id": last_id}]
    due = {record["merchant_id"] for record in world.stack.execute(DUE_OWN, LATER, 1_000_000)}
    assert world.merchant_id not in due


def test_a_user_nobody_knows_is_not_found(world: World) -> None:
    for path in ("74092", "74092/payouts", "x" * 65, "%00", "a%0Ab"):
        assert world.get(f"/aggregator/v1/users/{path}").status_code == 404, path


def test_an_idle_merchant_is_never_polled(world: World) -> None:
    with Vendor([row(1)]) as vendor:  # noqa: SIM117 -- the second one says why, on a line of its own
        # When a poll of another merchant has come and gone, the finding has looked at this one too.
        with World.create(world.stack) as other:
            other.client.put("/aggregator/v1/source", json={"url": vendor.url})
            until(lambda: balance(other, "074092"))
    assert world.get("/aggregator/v1/fetches").json()["data"] == []


@pytest.mark.nightly
def test_for_once_in_real_time_no_minute_sees_six_calls(world: World) -> None:
    with Vendor([row(n) for n in range(2500)]) as vendor:
        assert world.client.put("/aggregator/v1/source", json={"url": vendor.url}).status_code == 200
        until(lambda: balance(world, "074092").get("earned") == "2500.00", seconds=90)
        until(lambda: len(vendor.calls) >= 6, seconds=150, pause=0.5)
        times = [at for at, _, _ in vendor.calls]
        assert all(sixth - first >= 60 for first, sixth in zip(times, times[5:], strict=False))
    assert balance(world, "074092")["earned"] == "2500.00"


def test_a_vendors_keys_are_sent_to_it_and_shown_to_nobody(world: World) -> None:
    secret = "vendor-key-83c1"
    with Vendor([row(1)]) as vendor:
        body = {"url": vendor.url, "headers": {"X-API-KEY": secret}}
        answer = world.client.put("/aggregator/v1/source", json=body)
        assert answer.json() == {"url": vendor.url, "header_names": ["X-API-KEY"]} == world.get("/aggregator/v1/source").json()
        until(lambda: balance(world, "074092"))
        assert vendor.calls[0][2]["x-api-key"] == secret
    assert secret not in world.get("/aggregator/v1/fetches").text
    kept = world.stack.execute("SELECT headers FROM vendor_cursors WHERE merchant_id = $1", world.merchant_id)[0]["headers"]
    assert secret.encode() not in kept


def test_another_source_begins_anew_and_calls_go_on_counting(world: World) -> None:
    with Vendor([row(1), row(2, amount="bad")]) as one, Vendor([row(3, user="12")]) as two:
        world.client.put("/aggregator/v1/source", json={"url": one.url})
        until(lambda: balance(world, "074092"))
        world.client.put("/aggregator/v1/source", json={"url": two.url})
        until(lambda: balance(world, "12"))
        assert balance(world, "074092") == {}
        assert world.get("/aggregator/v1/dead-letters").json()["data"] == []
        assert len(world.get("/aggregator/v1/fetches").json()["data"]) == 2


def test_a_row_that_cannot_be_understood_waits_until_it_can(world: World) -> None:
    with Vendor([row(1), row(2, amount="2,00")]) as vendor:
        world.client.put("/aggregator/v1/source", json={"url": vendor.url})
        until(lambda: balance(world, "074092"))
    letters = world.get("/aggregator/v1/dead-letters").json()["data"]
    assert len(letters) == 1
    assert '"2,00"' in letters[0]["raw"]
    assert letters[0]["reason"].startswith("amount must be")
    assert world.client.post("/aggregator/v1/dead-letters/replay").json() == {"replayed": 0, "remaining": 1}
    # As after a release that understands it.
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
def test_a_source_that_must_not_be_is_refused(world: World, body: dict[str, Any]) -> None:
    answer = world.client.put("/aggregator/v1/source", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")


async def test_a_name_that_leads_to_a_private_address_is_refused_when_it_is_connected_to(stack: Stack, world: World) -> None:
    await open_pool(stack.database_url, 2)
    driven = Driven(world.merchant_id)
    closed = HttpVendor(())
    try:
        driven.poller = driven.over(closed)
        await driven.point_at("http://localhost:9/")
        await driven.call()
        assert "is loopback and not allowed" in (await driven.fetches())[0]["error"]
    finally:
        await closed.close()
        await driven.http.close()
        await close_pool()


def test_deleting_the_merchant_deletes_all_of_it(stack: Stack) -> None:
    with World.create(stack) as world, Vendor([row(1), row(2, amount="bad")]) as vendor:
        world.client.put("/aggregator/v1/source", json={"url": vendor.url})
        until(lambda: balance(world, "074092"))
        headers = {"X-ADMIN-KEY": stack.admin_key}
        assert world.client.delete(f"/sandbox/v1/merchants/{world.merchant_id}", headers=headers).status_code == 204
        for table in ("cursors", "fetches", "transactions", "balances", "dead_letters"):
            assert not stack.execute(f"SELECT FROM vendor_{table} WHERE merchant_id = $1", world.merchant_id)
