"""Whatever a merchant's endpoints do or fail to do, all other endpoints are delivered to as usual."""

import asyncio
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from sandbox.aggregator.clients import HttpVendor, PageRequest
from sandbox.domain.clock import RUNNING
from sandbox.domain.webhook_signing import new_secret
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.infrastructure.tasks import end_tasks
from sandbox.webhooks import attempt, deliver
from sandbox.webhooks.attempt import AttemptRunner
from sandbox.webhooks.capacity import CALLS, ENDPOINT_CALLS, MAX_CALLS_WHEN_SLOWED, Capacity
from sandbox.webhooks.deliver import Deliverer
from sandbox.webhooks.outbox import LEASE, AttemptResult, ClaimedDelivery
from sandbox.webhooks.resolver import LookupTimeoutError, NameResolver
from sandbox.webhooks.sender import LIMIT, WebhookSender
from tests.harness.names import SilentNameServer, silent_port
from tests.harness.raw_server import LOOPBACK, OK, Peer, read_request, sending, serving

NEVER = 3600.0
"""Seconds: longer than any test may take."""
MAX_ENDPOINTS = 16
BOX = SecretBox(bytes(32))


class Outbox:
    """Deliveries in memory, in the place of the tables: claimed within the capacity that is given, recorded in a list."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.recorded: dict[str, list[AttemptResult]] = defaultdict(list)
        self._due: dict[str, dict[str, deque[ClaimedDelivery]]] = defaultdict(lambda: defaultdict(deque))
        self.claims = 0
        self._changed = asyncio.Condition()
        self._nothing_found: set[str] = set()
        monkeypatch.setattr(deliver, "claim_due", self._claim)
        monkeypatch.setattr(attempt, "record_attempts", self._record)

    def add(self, merchant_id: str, url: str, count: int) -> None:
        """Make so many deliveries due to an endpoint at `url`."""
        self._nothing_found.discard(merchant_id)
        now = datetime.now(UTC)
        secret = BOX.seal(new_secret(bytes(32)), f"{merchant_id}/{url}", bytes(12))
        for _ in range(count):
            one = ClaimedDelivery(
                id=str(uuid.uuid4()), event_id=str(uuid.uuid4()), endpoint_id=url, url=url, sealed_secret=secret,
                retry_profile="standard", signing_time="host", scheduled_attempts=0, attempt=1,
                event_type="payout.created", body=b"{}", request_id="r", lease=now + LEASE, clock=RUNNING,
            )  # fmt: skip
            self._due[merchant_id][url].append(one)

    async def until_recorded(self, merchant_id: str, url: str, count: int) -> list[AttemptResult]:
        """Wait until so many attempts at an endpoint were recorded, and give them."""

        def found() -> list[AttemptResult]:
            return [result for result in self.recorded[merchant_id] if result.claimed.url == url]

        async with self._changed:
            await self._changed.wait_for(lambda: len(found()) >= count)
        return found()

    async def until_full(self, merchant_id: str) -> None:
        """Wait until a look for the merchant's deliveries claimed none, though there are some: its share is used up."""
        async with self._changed:
            await self._changed.wait_for(lambda: merchant_id in self._nothing_found)

    async def _claim(
        self, merchant_id: str, capacity: Mapping[str, int], default_capacity: int
    ) -> tuple[list[ClaimedDelivery], frozenset[str]]:
        await asyncio.sleep(0)
        self.claims += 1
        claimed = [
            waiting.popleft()
            for endpoint_id, waiting in self._due[merchant_id].items()
            for _ in range(min(len(waiting), capacity.get(endpoint_id, default_capacity)))
        ]
        if not claimed:
            async with self._changed:
                self._nothing_found.add(merchant_id)
                self._changed.notify_all()
        return claimed, frozenset()

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


async def answers_unless_told_to_hang(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request but those to /hang, which are taken and never answered."""
    while (request := await read_request(reader)) is not None:
        if request.startswith(b"POST /hang"):
            await peer.wait_for_disconnect(reader)
            return
        writer.write(OK)
        await writer.drain()


def test_names_that_are_never_answered_delay_no_endpoint_of_any_merchant(monkeypatch: pytest.MonkeyPatch) -> None:
    """On uvloop, where such names used to fill the four threads that every connection passes."""
    uvloop.run(asyncio.wait_for(_with_names_never_answered(monkeypatch), 120))


async def _with_names_never_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(monkeypatch)
    loop = asyncio.get_running_loop()
    transport, hole = await loop.create_datagram_endpoint(SilentNameServer, ("127.0.0.1", 0))
    try:
        await _among_silent_names(outbox, hole, f"127.0.0.1:{transport.get_extra_info('sockname')[1]}")
    finally:
        transport.close()


async def _among_silent_names(outbox: Outbox, hole: SilentNameServer, server: str) -> None:
    resolver = NameResolver(NEVER, nameservers=[server], tries=10_000)
    names = {f"host-{number}.example" for number in range(MAX_ENDPOINTS)}
    async with (
        serving(answers_unless_told_to_hang) as peer,
        sending(NEVER, resolver=resolver) as sender,
        delivering(sender) as deliverer,
    ):
        for name in names:
            outbox.add("unresolvable", f"http://{name}/", ENDPOINT_CALLS)
        deliverer.wake("unresolvable")
        await hole.wait_for_queries(names)
        await outbox.until_full("unresolvable")
        # One of the same merchant, as if in the place of a name, and one of another's; by address, and by a local name.
        for merchant_id, host in (("unresolvable", "127.0.0.1"), ("other", "127.0.0.1"), ("third", "localhost")):
            url = f"http://{host}:{peer.port}/"
            outbox.add(merchant_id, url, 300)
            deliverer.wake(merchant_id)
            results = await outbox.until_recorded(merchant_id, url, 300)
            assert {result.http_status for result in results} == {200}
        assert {result.claimed.url for result in outbox.recorded["unresolvable"]} == {f"http://127.0.0.1:{peer.port}/"}


def test_vendors_whose_names_are_never_answered_delay_no_other() -> None:
    """On uvloop, as above."""
    uvloop.run(asyncio.wait_for(_among_silent_vendors(), 120))


async def _among_silent_vendors() -> None:
    async def vendor(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()

    def ask(url: str) -> PageRequest:
        return PageRequest(merchant_id="m", url=url, headers={}, since=None, page=1)

    loop = asyncio.get_running_loop()
    transport, hole = await loop.create_datagram_endpoint(SilentNameServer, ("127.0.0.1", 0))
    server = f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"
    client = HttpVendor(LOOPBACK, NEVER, NameResolver(NEVER, nameservers=[server], tries=10_000))
    names = {f"vendor-{number}.example" for number in range(MAX_ENDPOINTS)}
    waiting = [asyncio.create_task(client.fetch(ask(f"http://{name}/"))) for name in names]
    try:
        await hole.wait_for_queries(names)
        async with serving(vendor) as peer:
            assert await client.fetch(ask(f"http://127.0.0.1:{peer.port}/")) == b"{}"
        assert not any(task.done() for task in waiting)
    finally:
        await end_tasks(*waiting)
        await client.close()
        transport.close()


@pytest.mark.parametrize("hanging_merchants", [1, 8])
async def test_endpoints_that_never_answer_delay_no_other(monkeypatch: pytest.MonkeyPatch, hanging_merchants: int) -> None:
    """The one that is answered may be the same merchant's, and on the same host and port."""
    outbox = Outbox(monkeypatch)
    merchants = [f"hanging-{number}" for number in range(hanging_merchants)]
    async with (
        serving(answers_unless_told_to_hang) as peer,
        sending(NEVER) as sender,
        delivering(sender) as deliverer,
    ):
        for merchant_id in merchants:
            for number in range(MAX_ENDPOINTS - 1):
                outbox.add(merchant_id, f"http://127.0.0.1:{peer.port}/hang/{number}", 2 * ENDPOINT_CALLS)
            deliverer.wake(merchant_id)
        for merchant_id in merchants:
            await asyncio.wait_for(outbox.until_full(merchant_id), 120)
        url = f"http://127.0.0.1:{peer.port}/living"
        for merchant_id in dict.fromkeys((merchants[0], merchants[-1], "living")):
            outbox.add(merchant_id, url, 300)
            deliverer.wake(merchant_id)
            results = await asyncio.wait_for(outbox.until_recorded(merchant_id, url, 300), 120)
            assert {result.http_status for result in results} == {200}
        assert {result.claimed.url for results in outbox.recorded.values() for result in results} == {url}


def fill(capacity: Capacity, merchant_id: str, endpoints: int) -> int:
    """Begin calls to a merchant's endpoints as long as there is capacity, none of which ends; how many there are."""
    begun = 0
    while True:
        free = capacity.free_capacity(merchant_id, 0.0)
        for number in range(endpoints):
            for _ in range(free.by_endpoint.get(str(number), free.default)):
                capacity.begin(merchant_id, str(number))
                begun += 1
        if not any(free.by_endpoint.get(str(number), free.default) for number in range(endpoints)):
            return begun


@given(st.lists(st.integers(1, MAX_ENDPOINTS), min_size=1, max_size=16))
def test_however_much_hangs_there_is_room_for_one_more(endpoints: list[int]) -> None:
    """Sixteen merchants may hang with all of their endpoints, and another merchant's is still called at once."""
    capacity = Capacity()
    begun = sum(fill(capacity, f"hanging-{number}", count) for number, count in enumerate(endpoints))
    assert begun <= CALLS < LIMIT
    assert capacity.free_capacity("newcomer", 0.0).default >= 1


@given(st.integers(0, 8), st.integers(1, MAX_ENDPOINTS - 1))
def test_within_a_merchant_too(others: int, hanging: int) -> None:
    """Also when other merchants' endpoints hang, before or after its own."""
    capacity = Capacity()
    fill(capacity, "merchant", hanging)
    for number in range(others):
        fill(capacity, f"other-{number}", MAX_ENDPOINTS)
    assert capacity.free_capacity("merchant", 0.0).default >= 1
    fill(capacity, "last", hanging)
    assert capacity.free_capacity("last", 0.0).default >= 1


def test_an_endpoint_alone_gets_all_that_one_may_have_and_gives_it_back() -> None:
    capacity = Capacity()
    assert fill(capacity, "merchant", 1) == ENDPOINT_CALLS
    for _ in range(ENDPOINT_CALLS):
        capacity.end("merchant", "0")
    assert capacity.free_capacity("merchant", 0.0) == Capacity().free_capacity("merchant", 0.0)


def test_who_asked_for_fewer_calls_gets_fewer_until_then_and_is_no_other_merchants_endpoint() -> None:
    """Worlds of one seed have endpoints of the same ids."""
    capacity = Capacity()
    capacity.slow_down("merchant", "endpoint", 10.0)
    assert capacity.free_capacity("merchant", 9.0).by_endpoint == {"endpoint": MAX_CALLS_WHEN_SLOWED}
    capacity.begin("merchant", "endpoint")
    assert capacity.free_capacity("merchant", 9.0).by_endpoint == {"endpoint": MAX_CALLS_WHEN_SLOWED - 1}
    assert capacity.free_capacity("twin", 9.0).by_endpoint == {}
    assert capacity.free_capacity("merchant", 10.0).by_endpoint["endpoint"] > MAX_CALLS_WHEN_SLOWED


async def test_a_local_name_needs_no_name_server() -> None:
    with silent_port() as port:
        resolver = NameResolver(NEVER, nameservers=[f"127.0.0.1:{port}"], tries=10_000)
        for name in ("localhost", "LOCALHOST", "localhost."):
            assert "127.0.0.1" in {found["host"] for found in await resolver.resolve(name, 80)}
        await resolver.close()


async def test_a_lookup_ends_in_time_and_says_so() -> None:
    with silent_port() as port:
        resolver = NameResolver(0.05, nameservers=[f"127.0.0.1:{port}"])
        with pytest.raises(LookupTimeoutError):
            await resolver.resolve("host.example", 80)
        async with sending(resolver=resolver) as sender:
            result = await sender.send("http://host.example/", b"{}", {})
        assert result.error == "the host name could not be looked up: no name server responded in time"


async def test_the_caches_of_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.webhooks.resolver.LOOKUPS_PER_CACHE", 2)
    resolver = NameResolver()
    first = resolver._resolver
    for _ in range(2):
        await resolver.resolve("localhost", 80)
    assert resolver._resolver is first
    await resolver.resolve("localhost", 80)
    assert resolver._resolver is not first
    await resolver.close()


async def test_deliveries_are_claimed_once_for_a_wake_unless_capacity_was_short(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(monkeypatch)
    async with serving(answers_unless_told_to_hang) as peer, sending(LOOPBACK) as sender, delivering(sender) as deliverer:
        outbox.add("m", peer.url, 3)
        before = asyncio.all_tasks()
        deliverer.wake("m")
        (task,) = asyncio.all_tasks() - before
        await asyncio.wait_for(task, 60)
        assert (len(outbox.recorded["m"]), outbox.claims) == (3, 1)
        outbox.add("m", peer.url, 5 * ENDPOINT_CALLS)
        deliverer.wake("m")
        await asyncio.wait_for(outbox.until_recorded("m", peer.url, 5 * ENDPOINT_CALLS + 3), 60)
