"""The aggregator reads every vendor row exactly once, within the rate limit, even if the vendor is slow or returns errors."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from typing import Any

import pytest

from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.users.aggregator.feed_clients import HttpVendor, OwnVendor
from sandbox.users.aggregator.poll import Poller
from sandbox.users.aggregator.store import FETCHES_KEPT, MAX_DEAD_LETTERS, Claim, Outcome, claim_poll, record_fetch
from sandbox.users.vendor_feed.service import FeedService
from sandbox.webhooks.outbound.address_guard import Network
from tests.harness.vendor import START, Fault, Vendor, row
from tests.harness.world import World

LATER = datetime(2100, 1, 1, tzinfo=UTC)
"""Start of the injected time. It is so late that the sandbox's own workers, which use the real time, never run these polls."""
MINUTE = timedelta(seconds=60)
LOOPBACK: list[Network] = [IPv4Network("127.0.0.0/8")]
BOX = SecretBox(b"k" * 32)


class DrivenPoller:
    """A poller in injected time, which moves only to the time of the next poll."""

    def __init__(self, merchant_id: str) -> None:
        self.merchant_id = merchant_id
        self.now = LATER
        self.http = HttpVendor(LOOPBACK)
        self.poller = self.with_client(self.http)
        self.calls: list[datetime] = []

    def with_client(self, http: HttpVendor) -> Poller:
        """Return a poller with the same clock that uses another HTTP client."""
        return Poller(BOX, OwnVendor(FeedService()), http, lambda: self.now)

    async def point_at(self, url: str) -> None:
        """Read from this URL, starting at LATER."""
        async with connection(self.merchant_id) as conn:
            await conn.execute(
                "INSERT INTO vendor_cursors (merchant_id, url, page, failures, next_poll_at, updated_at) "
                "VALUES ($1, $2, 1, 0, $3, $3)", self.merchant_id, url, LATER,
            )  # fmt: skip

    async def call(self) -> None:
        """Advance the time to the next call, and make it."""
        while True:
            async with connection(self.merchant_id) as conn:
                due = await conn.fetchval("SELECT next_poll_at FROM vendor_cursors WHERE merchant_id = $1", self.merchant_id)
            self.now = max(self.now, due)
            if await self.poller.poll(self.merchant_id):
                self.calls.append(self.now)
                return

    async def fetches(self) -> list[dict[str, Any]]:
        """Return the recorded calls, oldest first."""
        async with connection(self.merchant_id) as conn:
            found = await conn.fetch("SELECT * FROM vendor_fetches WHERE merchant_id = $1 ORDER BY id", self.merchant_id)
        return [dict(record) for record in found]

    async def ids(self) -> list[str]:
        """Return the vendor's ids of all stored rows."""
        async with connection(self.merchant_id) as conn:
            found = await conn.fetch(
                "SELECT vendor_id FROM vendor_transactions WHERE merchant_id = $1 ORDER BY vendor_id", self.merchant_id
            )
        return [record["vendor_id"] for record in found]

    async def earned(self) -> dict[str, str]:
        """Return the stored earned total of each user."""
        async with connection(self.merchant_id) as conn:
            found = await conn.fetch("SELECT user_id, earned FROM vendor_balances WHERE merchant_id = $1", self.merchant_id)
        return {record["user_id"]: str(record["earned"]) for record in found}

    def assert_within_the_limit(self) -> None:
        """Fail if any 60 seconds had more than five calls."""
        assert all(sixth - first >= MINUTE for first, sixth in zip(self.calls, self.calls[5:], strict=False))


@pytest.fixture
async def driven(pool: None, world: World) -> AsyncIterator[DrivenPoller]:
    """Yield a poller in injected time for this test's merchant."""
    driven = DrivenPoller(world.merchant_id)
    yield driven
    await driven.http.close()


async def test_2500_rows_take_three_calls_and_no_minute_has_six(driven: DrivenPoller) -> None:
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
    assert await driven.earned() == {"074092": "2500.00"}, "further polls must change nothing"
    assert len(await driven.fetches()) == 23


async def test_every_row_is_stored_once_despite_vendor_faults(driven: DrivenPoller) -> None:
    faults: list[Fault | None] = [
        "slow", "500", None, "429", "break off", "repeat", "short", "not json", None, "redirect", "huge", "drop", "repeat",
    ]  # fmt: skip
    with Vendor([row(n) for n in range(2500)], faults) as vendor:
        await driven.point_at(vendor.url)
        # Use the short timeout for the first, slow response only. The vendor runs in this process: if the process stalls,
        # other calls must not time out.
        short_timeout = HttpVendor(LOOPBACK, 1)
        usual_poller, driven.poller = driven.poller, driven.with_client(short_timeout)
        await driven.call()
        await short_timeout.close()
        driven.poller = usual_poller
        while vendor.faults:
            await driven.call()
        for _ in range(3):
            await driven.call()
        vendor.released.set()
        assert len(vendor.calls) == len(driven.calls), "every call that the vendor received must be counted"
    assert len(await driven.ids()) == 2500
    assert await driven.earned() == {"074092": "2500.00"}
    driven.assert_within_the_limit()
    errors = [fetch["error"] for fetch in await driven.fetches() if fetch["outcome"] == "FAILED"]
    assert errors[:2] == ["timed out after 1 s", "the vendor responded with 500"]
    assert "the vendor responded with 429" in errors
    assert "the response is incomplete" in errors
    assert "the vendor responded with 302" in errors
    assert "the response is larger than 2097152 bytes" in errors
    assert len(errors) == 9


async def test_failed_pages_are_retried_with_backoff_and_respect_retry_after(driven: DrivenPoller) -> None:
    with Vendor([row(1)], ["500", "500", "429"]) as vendor:
        await driven.point_at(vendor.url)
        for _ in range(4):
            await driven.call()
    waits = [(after - before).total_seconds() for before, after in zip(driven.calls, driven.calls[1:], strict=False)]
    assert waits == [20, 40, 90]
    assert await driven.ids() == ["row-1"]


async def test_new_rows_are_read_even_with_the_same_time_as_the_last_row(driven: DrivenPoller) -> None:
    with Vendor([row(1), row(2)]) as vendor:
        await driven.point_at(vendor.url)
        await driven.call()
        vendor.rows += [row(3, at=START + timedelta(seconds=2)), row(4, user="12", amount=1.5)]
        await driven.call()
        assert driven.calls[1] - driven.calls[0] == timedelta(seconds=20)
        assert await driven.earned() == {"074092": "3.00", "12": "1.50"}
        # The vendor shows this row late; its time is within the overlap.
        vendor.rows.append(row(5, at=START - timedelta(seconds=30)))
        await driven.call()
    assert await driven.ids() == [f"row-{n}" for n in range(1, 6)]


async def test_no_row_is_skipped_if_rows_are_added_between_pages_in_newest_first_order(driven: DrivenPoller) -> None:
    with Vendor([row(n) for n in range(1500)][::-1]) as vendor:
        await driven.point_at(vendor.url)
        await driven.call()
        vendor.rows = [row(n) for n in range(1500, 1900)][::-1] + vendor.rows
        for _ in range(3):
            await driven.call()
    assert len(await driven.ids()) == 1900
    assert await driven.earned() == {"074092": "1900.00"}


async def test_no_row_is_skipped_after_an_empty_page_in_newest_first_order(driven: DrivenPoller) -> None:
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
    errors = [(fetch["status"], fetch["error"]) for fetch in await driven.fetches() if fetch["outcome"] == "FAILED"]
    assert errors == [(200, "the vendor had at least 2 pages and now has 0; the sync starts over")]


async def test_a_row_with_an_invalid_time_does_not_stop_reading(driven: DrivenPoller) -> None:
    with Vendor([row(1, at=datetime(1, 1, 1, tzinfo=UTC))]) as vendor:
        await driven.point_at(vendor.url)
        await driven.call()
        vendor.rows.append(row(2))
        await driven.call()
    assert await driven.ids() == ["row-2"]
    assert [(fetch["outcome"], fetch["dead_letters"]) for fetch in await driven.fetches()] == [("SUCCEEDED", 1)] * 2


async def test_an_internal_error_is_recorded_and_retried_with_backoff(
    driven: DrivenPoller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OverflowError

    with Vendor([row(1)]) as vendor:
        await driven.point_at(vendor.url)
        with monkeypatch.context() as patched:
            patched.setattr("sandbox.users.aggregator.poll.after_page", fail)
            for _ in range(2):
                await driven.call()
        await driven.call()
    waits = [(after - before).total_seconds() for before, after in zip(driven.calls, driven.calls[1:], strict=False)]
    assert waits == [20, 40]
    fetches = [(fetch["outcome"], fetch["error"]) for fetch in await driven.fetches()]
    assert fetches == [("FAILED", "the page could not be processed (OverflowError)")] * 2 + [("SUCCEEDED", None)]
    assert await driven.ids() == ["row-1"]


async def test_concurrent_pollers_make_one_call(driven: DrivenPoller) -> None:
    with Vendor([row(1)]) as vendor:
        await driven.point_at(vendor.url)
        polled = await asyncio.gather(*(driven.poller.poll(driven.merchant_id) for _ in range(8)))
        assert polled.count(True) == len(vendor.calls) == 1


async def test_a_call_of_a_dead_worker_counts_towards_the_limit_and_its_page_is_read_again(driven: DrivenPoller) -> None:
    with Vendor([row(1)]) as vendor:
        await driven.point_at(vendor.url)
        dead_claims: list[Claim] = []
        for _ in range(5):
            claim = await claim_poll(driven.merchant_id, BOX, driven.now)
            assert claim is not None
            dead_claims.append(claim)
            driven.calls.append(driven.now)
            assert await claim_poll(driven.merchant_id, BOX, driven.now) is None, "a leased merchant must not be claimed again"
            driven.now += timedelta(seconds=30)
        await driven.call()
        # A late result of the dead worker is ignored, because another worker has read the page since.
        assert not await record_fetch(dead_claims[4], Outcome(driven.now, 200), dead_claims[4].cursor, LATER, None)
    assert await driven.ids() == ["row-1"]
    driven.assert_within_the_limit()
    assert [fetch["outcome"] for fetch in await driven.fetches()] == ["FAILED"] * 5 + ["SUCCEEDED"]


async def test_a_host_name_that_resolves_to_a_loopback_address_is_refused_when_connecting(driven: DrivenPoller) -> None:
    guarded = HttpVendor(())  # makes no exception for loopback, unlike the usual one
    driven.poller = driven.with_client(guarded)
    await driven.point_at("http://localhost:9/")
    await driven.call()
    await guarded.close()
    assert "is loopback and not allowed" in (await driven.fetches())[0]["error"]


async def test_recorded_calls_are_kept_for_a_week(driven: DrivenPoller) -> None:
    with Vendor([row(1)]) as vendor:
        await driven.point_at(vendor.url)
        await driven.call()
        driven.now += FETCHES_KEPT - MINUTE
        await driven.call()
        assert len(await driven.fetches()) == 2
        driven.now += 2 * MINUTE
        await driven.call()
        assert len(await driven.fetches()) == 2, "the record of the first call must be deleted"


async def fill_dead_letters(driven: DrivenPoller, count: int) -> None:
    async with connection(driven.merchant_id) as conn:
        await conn.execute(
            "INSERT INTO vendor_dead_letters (merchant_id, id, digest, raw, reason, created_at) "
            "SELECT $1, gen_random_uuid(), decode(lpad(to_hex(n), 64, '0'), 'hex'), '{}', 'r', $2 "
            "FROM generate_series(1, $3::int) n", driven.merchant_id, LATER, count,
        )  # fmt: skip


async def test_reading_stops_without_loss_while_there_are_too_many_dead_letters(driven: DrivenPoller) -> None:
    with Vendor([row(1, amount="much"), row(2)]) as vendor:
        await driven.point_at(vendor.url)
        await fill_dead_letters(driven, MAX_DEAD_LETTERS)
        await driven.call()
        assert await driven.ids() == []
        async with connection(driven.merchant_id) as conn:
            await conn.execute("DELETE FROM vendor_dead_letters WHERE merchant_id = $1", driven.merchant_id)
        await driven.call()
    assert await driven.ids() == ["row-2"]
    assert [fetch["dead_letters"] for fetch in await driven.fetches()] == [0, 1]


async def test_a_dead_letter_that_is_stored_already_does_not_count_again(driven: DrivenPoller) -> None:
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
    assert (await driven.fetches())[-1]["error"].startswith("the page has 1 more rows that cannot be parsed")
