"""An endpoint that hangs or whose name cannot be looked up never delays the deliveries to other endpoints."""

import asyncio
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from unittest.mock import AsyncMock

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from sandbox.domain.clock import RUNNING
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.infrastructure.tasks import end_tasks
from sandbox.users.aggregator.feed_clients import HttpVendor, PageRequest
from sandbox.webhooks.delivery import attempt
from sandbox.webhooks.delivery import deliverer as deliver
from sandbox.webhooks.delivery.attempt import AttemptRunner
from sandbox.webhooks.delivery.capacity import (
    CALLS,
    ENDPOINT_CALLS,
    MAX_CALLS_WHEN_FAILING,
    MAX_CALLS_WHEN_SLOWED,
    MAX_FAILURES_IN_A_ROW,
    PAUSE_SECONDS,
    Capacity,
)
from sandbox.webhooks.delivery.claims import DueClaim
from sandbox.webhooks.delivery.deliverer import Deliverer
from sandbox.webhooks.delivery.outbox import LEASE, AttemptResult, ClaimedDelivery, ClaimedEndpoint
from sandbox.webhooks.outbound.resolver import LookupTimeoutError, NameResolver
from sandbox.webhooks.outbound.sender import MAX_IN_FLIGHT, WebhookSender
from sandbox.webhooks.signing.standard_webhooks import new_secret
from tests.harness.names import SilentNameServer, silent_port
from tests.harness.raw_server import LOOPBACK, OK, Peer, read_request, sending, serving

LONG_TIMEOUT = 3600.0
"""In seconds: longer than any test runs."""
MAX_ENDPOINTS = 16
BOX = SecretBox(bytes(32))


class Outbox:
    """Deliveries in memory that replace the tables. Claims respect the given capacity, and results go to a list."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recorded: dict[str, list[AttemptResult]] = defaultdict(list)
        self._due: dict[str, dict[str, deque[ClaimedDelivery]]] = defaultdict(lambda: defaultdict(deque))
        self.claims = 0
        self.disabled: set[str] = set()
        self._changed = asyncio.Condition()
        self._no_capacity: set[str] = set()
        monkeypatch.setattr(deliver, "claim_due", self._claim)
        monkeypatch.setattr(attempt, "record_attempts", self._record)

    def add(self, merchant_id: str, url: str, count: int) -> None:
        """Add `count` due deliveries to the endpoint at `url`."""
        self._no_capacity.discard(merchant_id)
        now = datetime.now(UTC)
        secret = BOX.seal(new_secret(bytes(32)), f"{merchant_id}/{url}", bytes(12))
        for _ in range(count):
            delivery = ClaimedDelivery(
                id=str(uuid.uuid4()), event_id=str(uuid.uuid4()), endpoint_id=url,
                endpoint=ClaimedEndpoint(url, (secret,), "standard"), scheduled_attempts=0, attempt=1,
                event_type="payout.created", body=b"{}", request_id="r", lease=now + LEASE, clock=RUNNING,
                traceparent="",
            )  # fmt: skip
            self._due[merchant_id][url].append(delivery)

    async def until_recorded(self, merchant_id: str, url: str, count: int) -> list[AttemptResult]:
        """Wait until `count` attempts for the endpoint are recorded, and return them."""

        def recorded() -> list[AttemptResult]:
            return [result for result in self.recorded[merchant_id] if result.claimed.endpoint.url == url]

        async with self._changed:
            await self._changed.wait_for(lambda: len(recorded()) >= count)
        return recorded()

    async def until_full(self, merchant_id: str) -> None:
        """Wait until a claim returns no delivery although some are due, because the merchant's share of calls is used up."""
        async with self._changed:
            await self._changed.wait_for(lambda: merchant_id in self._no_capacity)

    async def until_claims(self, count: int) -> None:
        """Wait until as many claims have been made."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.claims >= count)

    async def _claim(self, merchant_id: str, capacity: Mapping[str, int], default_capacity: int) -> DueClaim:
        await asyncio.sleep(0)
        self.claims += 1
        claimed = [
            waiting.popleft()
            for endpoint_id, waiting in self._due[merchant_id].items()
            for _ in range(min(len(waiting), capacity.get(endpoint_id, default_capacity)))
        ]
        async with self._changed:
            if not claimed:
                self._no_capacity.add(merchant_id)
            self._changed.notify_all()
        return DueClaim(claimed, enabled=frozenset(self._due[merchant_id]) - self.disabled)

    async def _record(self, merchant_id: str, results: Sequence[AttemptResult]) -> None:
        async with self._changed:
            self.recorded[merchant_id] += results
            self._changed.notify_all()


@asynccontextmanager
async def delivering(sender: WebhookSender) -> AsyncIterator[Deliverer]:
    deliverer = Deliverer(AttemptRunner(sender, BOX))
    try:
        yield deliverer
    finally:
        await deliverer.stop(0)


async def respond_except_on_hang(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Respond with 200 to every request, except those to /hang, which never get a response."""
    while (request := await read_request(reader)) is not None:
        if request.startswith(b"POST /hang"):
            await peer.wait_for_disconnect(reader)
            return
        writer.write(OK)
        await writer.drain()


def test_unresolvable_names_delay_no_other_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs on uvloop, where such names used to block the four threads that every connection needs."""
    uvloop.run(asyncio.wait_for(_deliver_with_silent_name_server(monkeypatch), 120))


async def _deliver_with_silent_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(monkeypatch)
    loop = asyncio.get_running_loop()
    transport, name_server = await loop.create_datagram_endpoint(SilentNameServer, ("127.0.0.1", 0))
    try:
        await _deliver_despite_unresolvable_names(outbox, name_server, f"127.0.0.1:{transport.get_extra_info('sockname')[1]}")
    finally:
        transport.close()


async def _deliver_despite_unresolvable_names(outbox: Outbox, name_server: SilentNameServer, address: str) -> None:
    resolver = NameResolver(LONG_TIMEOUT, nameservers=[address], tries=10_000)
    names = {f"host-{number}.example" for number in range(MAX_ENDPOINTS)}
    async with (
        serving(respond_except_on_hang) as peer,
        sending(LONG_TIMEOUT, resolver=resolver) as sender,
        delivering(sender) as deliverer,
    ):
        for name in names:
            outbox.add("unresolvable", f"http://{name}/", ENDPOINT_CALLS)
        deliverer.wake("unresolvable")
        await name_server.wait_for_queries(names)
        await outbox.until_full("unresolvable")
        # Deliver to an endpoint of the same merchant and to endpoints of two others, by address and by a local name.
        for merchant_id, host in (("unresolvable", "127.0.0.1"), ("other", "127.0.0.1"), ("third", "localhost")):
            url = f"http://{host}:{peer.port}/"
            outbox.add(merchant_id, url, 300)
            deliverer.wake(merchant_id)
            results = await outbox.until_recorded(merchant_id, url, 300)
            assert {result.exchange.result.status for result in results} == {200}
        assert {result.claimed.endpoint.url for result in outbox.recorded["unresolvable"]} == {f"http://127.0.0.1:{peer.port}/"}


def test_unresolvable_vendor_names_delay_no_other_vendor() -> None:
    """Runs on uvloop, for the same reason as the test above."""
    uvloop.run(asyncio.wait_for(_fetch_despite_unresolvable_vendors(), 120))


async def _fetch_despite_unresolvable_vendors() -> None:
    async def vendor(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()

    def page_request(url: str) -> PageRequest:
        return PageRequest(merchant_id="m", url=url, headers={}, since=None, page=1)

    loop = asyncio.get_running_loop()
    transport, name_server = await loop.create_datagram_endpoint(SilentNameServer, ("127.0.0.1", 0))
    server = f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    client = HttpVendor(LOOPBACK, LONG_TIMEOUT, NameResolver(LONG_TIMEOUT, nameservers=[server], tries=10_000))
    names = {f"vendor-{number}.example" for number in range(MAX_ENDPOINTS)}
    waiting = [asyncio.create_task(client.fetch(page_request(f"http://{name}/"))) for name in names]
    try:
        await name_server.wait_for_queries(names)
        async with serving(vendor) as peer:
            assert await client.fetch(page_request(f"http://127.0.0.1:{peer.port}/")) == b"{}"
        assert not any(task.done() for task in waiting)
    finally:
        await end_tasks(*waiting)
        await client.close()
        transport.close()


@pytest.mark.parametrize("hanging_merchants", [1, 8])
async def test_endpoints_that_never_respond_delay_no_other_endpoint(
    monkeypatch: pytest.MonkeyPatch, hanging_merchants: int
) -> None:
    """This includes another endpoint of the same merchant on the same host and port."""
    outbox = Outbox(monkeypatch)
    merchants = [f"hanging-{number}" for number in range(hanging_merchants)]
    async with (
        serving(respond_except_on_hang) as peer,
        sending(LONG_TIMEOUT) as sender,
        delivering(sender) as deliverer,
    ):
        for merchant_id in merchants:
            for number in range(MAX_ENDPOINTS - 1):
                outbox.add(merchant_id, f"http://127.0.0.1:{peer.port}/hang/{number}", 2 * ENDPOINT_CALLS)
            deliverer.wake(merchant_id)
        for merchant_id in merchants:
            await asyncio.wait_for(outbox.until_full(merchant_id), 120)
        url = f"http://127.0.0.1:{peer.port}/responding"
        for merchant_id in dict.fromkeys((merchants[0], merchants[-1], "responding")):
            outbox.add(merchant_id, url, 300)
            deliverer.wake(merchant_id)
            results = await asyncio.wait_for(outbox.until_recorded(merchant_id, url, 300), 120)
            assert {result.exchange.result.status for result in results} == {200}
        assert {result.claimed.endpoint.url for results in outbox.recorded.values() for result in results} == {url}


def fill(capacity: Capacity, merchant_id: str, endpoints: int) -> int:
    """Start calls to a merchant's endpoints until there is no capacity. None of them ends. Return their number."""
    started = 0
    while True:
        free = capacity.free_capacity(merchant_id, 0.0)
        for number in range(endpoints):
            for _ in range(free.by_endpoint.get(str(number), free.default)):
                capacity.begin(merchant_id, str(number))
                started += 1
        if not any(free.by_endpoint.get(str(number), free.default) for number in range(endpoints)):
            return started


@given(st.lists(st.integers(1, MAX_ENDPOINTS), min_size=1, max_size=16))
def test_however_many_calls_hang_another_merchant_has_capacity(endpoints: list[int]) -> None:
    """All endpoints of sixteen merchants can hang, and another merchant's endpoint is still called immediately."""
    capacity = Capacity()
    started = sum(fill(capacity, f"hanging-{number}", count) for number, count in enumerate(endpoints))
    assert started <= CALLS < MAX_IN_FLIGHT
    assert capacity.free_capacity("other", 0.0).default >= 1


@given(st.integers(0, 8), st.integers(1, MAX_ENDPOINTS - 1))
def test_however_many_calls_hang_another_endpoint_of_the_merchant_has_capacity(others: int, hanging: int) -> None:
    """This holds even if other merchants' endpoints hang, before or after the merchant's own."""
    capacity = Capacity()
    fill(capacity, "merchant", hanging)
    for number in range(others):
        fill(capacity, f"other-{number}", MAX_ENDPOINTS)
    assert capacity.free_capacity("merchant", 0.0).default >= 1
    fill(capacity, "last", hanging)
    assert capacity.free_capacity("last", 0.0).default >= 1


def test_a_single_endpoint_gets_the_maximum_per_endpoint_and_releases_it() -> None:
    capacity = Capacity()
    assert fill(capacity, "merchant", 1) == ENDPOINT_CALLS
    for _ in range(ENDPOINT_CALLS):
        capacity.end("merchant", "0")
    assert capacity.free_capacity("merchant", 0.0) == Capacity().free_capacity("merchant", 0.0)


def test_a_slowed_endpoint_gets_fewer_calls_until_the_given_time_and_other_merchants_are_unaffected() -> None:
    """Merchants with the same seed have endpoints with the same ids."""
    capacity = Capacity()
    capacity.slow_down("merchant", "endpoint", 10.0)
    assert capacity.free_capacity("merchant", 9.0).by_endpoint == {"endpoint": MAX_CALLS_WHEN_SLOWED}
    capacity.begin("merchant", "endpoint")
    assert capacity.free_capacity("merchant", 9.0).by_endpoint == {"endpoint": MAX_CALLS_WHEN_SLOWED - 1}
    assert capacity.free_capacity("twin", 9.0).by_endpoint == {}
    assert capacity.free_capacity("merchant", 10.0).by_endpoint["endpoint"] > MAX_CALLS_WHEN_SLOWED


def test_an_endpoint_that_only_fails_gets_pauses_until_it_succeeds() -> None:
    capacity = Capacity(limit=10 * CALLS)
    usual = capacity.free_capacity("merchant", 0.0)
    for _ in range(MAX_FAILURES_IN_A_ROW - 1):
        assert capacity.failed("merchant", "endpoint", 0.0) is None
    assert (capacity.free_capacity("merchant", 0.0), capacity.paused("merchant", 0.0)) == (usual, set())
    pause = capacity.failed("merchant", "endpoint", 0.0)
    assert pause is not None
    assert PAUSE_SECONDS <= pause <= 2 * PAUSE_SECONDS
    assert capacity.failed("merchant", "endpoint", PAUSE_SECONDS / 2) is None
    assert capacity.free_capacity("merchant", PAUSE_SECONDS / 2).by_endpoint == {"endpoint": 0}
    assert capacity.paused("merchant", PAUSE_SECONDS / 2) == {"endpoint"}
    assert capacity.free_capacity("twin", PAUSE_SECONDS / 2) == usual
    assert capacity.free_capacity("merchant", pause).by_endpoint == {"endpoint": MAX_CALLS_WHEN_FAILING}
    assert capacity.paused("merchant", pause) == set()
    capacity.succeeded("merchant", "endpoint")
    assert capacity.free_capacity("merchant", pause) == usual


def test_a_merchants_failing_endpoints_share_few_calls_and_wake_one_after_the_other() -> None:
    capacity, endpoints = Capacity(limit=10 * CALLS), [f"endpoint {number}" for number in range(12)]
    for endpoint_id in endpoints:
        for _ in range(MAX_FAILURES_IN_A_ROW):
            capacity.failed("merchant", endpoint_id, 0.0)
    free = capacity.free_capacity("merchant", 2 * PAUSE_SECONDS).by_endpoint
    assert 0 < sum(free.values()) <= MAX_CALLS_WHEN_FAILING
    assert min(free.values()) >= 1
    milliseconds = range(int(2000 * PAUSE_SECONDS) + 1)
    ends = [next(ms for ms in milliseconds if id_ not in capacity.paused("merchant", ms / 1000)) for id_ in endpoints]
    assert max(ends) - min(ends) > 300 * PAUSE_SECONDS
    assert max(sum(start <= end < start + 50 for end in ends) for start in milliseconds) <= 4


async def test_localhost_is_resolved_without_a_name_server() -> None:
    with silent_port() as port:
        resolver = NameResolver(LONG_TIMEOUT, nameservers=[f"127.0.0.1:{port}"], tries=10_000)
        for name in ("localhost", "LOCALHOST", "localhost."):
            assert "127.0.0.1" in {entry["host"] for entry in await resolver.resolve(name, 80)}
        await resolver.close()


async def test_a_lookup_times_out_and_the_result_says_so() -> None:
    with silent_port() as port:
        resolver = NameResolver(0.05, nameservers=[f"127.0.0.1:{port}"])
        with pytest.raises(LookupTimeoutError):
            await resolver.resolve("host.example", 80)
        async with sending(resolver=resolver) as sender:
            result = await sender.send("http://host.example/", b"{}", {})
        assert result.error == "the host name could not be looked up: no name server responded in time"


async def test_the_cache_of_host_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.webhooks.outbound.resolver.LOOKUPS_PER_CACHE", 2)
    resolver = NameResolver()
    first = resolver._resolver
    for _ in range(2):
        await resolver.resolve("localhost", 80)
    assert resolver._resolver is first
    await resolver.resolve("localhost", 80)
    assert resolver._resolver is not first
    await resolver.close()


async def test_a_call_that_sends_several_deliveries_ends_when_the_endpoint_is_disabled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outbox, may_respond = Outbox(monkeypatch), asyncio.Event()
    monkeypatch.setattr(deliver, "split_into_sequences", lambda claimed: [claimed] if claimed else [])
    monkeypatch.setattr(deliver, "_SEQUENCE_SECONDS", 60)
    monkeypatch.setattr(attempt, "release_claims", AsyncMock())

    async def respond(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await read_request(reader) is not None:
            await may_respond.wait()
            writer.write(OK)
            await writer.drain()

    async with serving(respond) as peer, sending() as sender, delivering(sender) as deliverer:
        outbox.add("m", peer.url, 3)
        before = asyncio.all_tasks()
        deliverer.wake("m")
        (task,) = asyncio.all_tasks() - before
        await asyncio.wait_for(outbox.until_claims(1), 60)
        outbox.disabled.add(peer.url)
        deliverer.wake("m")
        await asyncio.wait_for(outbox.until_claims(2), 60)
        may_respond.set()
        await asyncio.wait_for(task, 60)
    assert len(outbox.recorded["m"]) == 1


async def test_a_wake_makes_one_claim_unless_capacity_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(monkeypatch)
    async with serving(respond_except_on_hang) as peer, sending() as sender, delivering(sender) as deliverer:
        outbox.add("m", peer.url, 3)
        before = asyncio.all_tasks()
        deliverer.wake("m")
        (task,) = asyncio.all_tasks() - before
        await asyncio.wait_for(task, 60)
        assert (len(outbox.recorded["m"]), outbox.claims) == (3, 1)
        outbox.add("m", peer.url, 5 * ENDPOINT_CALLS)
        deliverer.wake("m")
        await asyncio.wait_for(outbox.until_recorded("m", peer.url, 5 * ENDPOINT_CALLS + 3), 60)
