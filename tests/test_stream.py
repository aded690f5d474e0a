"""The stream sends every event as it happens, to a limited number of clients, and never waits for a slow client."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest

from sandbox.domain.errors import Problem, unavailable
from sandbox.infrastructure.live_feed import Message, Note
from sandbox.infrastructure.live_subscriber import LiveSubscriber
from sandbox.infrastructure.redis_client import connect
from sandbox.worlds.stream.streams import MAX_QUEUED_EVENTS, MAX_STREAMS, EventStream, Streams
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World

Event = tuple[str, dict[str, Any]]


@contextlib.contextmanager
def watching(world: World, api_key: str | None = None, **params: Any) -> Iterator[Iterator[str]]:
    """Open a stream with the merchant's key or another, wait until it listens, and yield its lines."""
    headers = {"accept": "text/event-stream", "X-API-KEY": api_key or world.api_key}
    with world.client.stream("GET", "/sandbox/v1/stream", params=params, headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        assert next(lines) == ": listening"
        yield lines


def events(lines: Iterator[str]) -> Iterator[Event]:
    """Yield the events from the lines of a stream as they arrive."""
    kind = ""
    for line in lines:
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))


def test_payout_events_and_delivery_attempts_are_streamed_as_they_happen(world: World, receiver: Receiver) -> None:
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.succeeded"]})
    with watching(world, limit=4, timeout=60, types="payout.*,webhook.attempted") as lines:
        payout = world.create_payout("0001")
        found = list(events(lines))
    assert [kind for kind, _ in found] == ["payout.created", "payout.processing", "payout.succeeded", "webhook.attempted"]
    changes = [(data["payout_id"], data["from"], data["to"]) for _, data in found[:3]]
    assert changes == [
        (payout["id"], None, "PENDING"), (payout["id"], "PENDING", "PROCESSING"), (payout["id"], "PROCESSING", "SUCCESS"),
    ]  # fmt: skip
    logged = world.get("/api/v1/events", payout_id=payout["id"]).json()["data"]
    assert [data["event_id"] for _, data in found[:3]] == [event["id"] for event in reversed(logged)]
    attempt = found[3][1]
    assert (attempt["event_id"], attempt["attempt"], attempt["status"]) == (logged[0]["id"], 1, 200)


def test_events_of_a_clock_advance_are_streamed(world: World) -> None:
    world.client.post("/sandbox/v1/clock/freeze")
    world.create_payout("0012")
    with watching(world, limit=1, timeout=60, types="payout.*") as lines:
        world.client.post("/sandbox/v1/clock/advance", json={"seconds": 60})
        assert [kind for kind, _ in events(lines)] == ["payout.returned"]


def test_a_stream_has_only_its_own_merchants_events(world: World) -> None:
    with (
        World.create(world.stack, opening_balance="1000.00") as other,
        watching(world, limit=1, timeout=60, types="payout.*") as lines,
    ):
        other.wait_for(other.create_payout("0001")["id"], "SUCCESS")
        payout = world.create_payout("0004")
        assert [data["payout_id"] for _, data in events(lines)] == [payout["id"]]


def test_api_requests_are_streamed_without_their_bodies(world: World) -> None:
    with watching(world, limit=1, timeout=60, types="request") as lines:
        response = world.post("/api/v1/payouts", world.payout_body("0004"))
        ((kind, call),) = list(events(lines))
    assert (kind, call["method"], call["path"], call["status"]) == ("request", "POST", "/api/v1/payouts", 201)
    assert call["request_id"] == response.headers["x-request-id"]
    assert world.get(f"/sandbox/v1/requests/{call['id']}").json()["response_body"] == response.text


def test_a_stream_ends_after_the_requested_timeout(world: World) -> None:
    with watching(world, timeout=0.2) as lines:
        assert list(events(lines)) == []


def test_the_number_of_streams_per_merchant_is_limited(world: World) -> None:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(watching(world, timeout=300)) for _ in range(MAX_STREAMS)]
        assert len(opened) == MAX_STREAMS
        refused = world.get("/sandbox/v1/stream", timeout=0)
        assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")
        assert int(refused.headers["retry-after"]) >= 1
        with World.create(world.stack) as other, watching(other, timeout=0):
            pass
    until(lambda: world.get("/sandbox/v1/stream", timeout=0).status_code == 200)


def test_a_stream_ends_when_its_key_is_revoked_and_other_streams_continue(world: World) -> None:
    key = world.post("/sandbox/v1/keys", {"role": "member"}).json()
    with (
        watching(world, limit=1, timeout=60, types="payout.*") as others,
        watching(world, key["api_key"], timeout=60, types="payout.*") as lines,
    ):
        assert world.client.delete(f"/sandbox/v1/keys/{key['id']}").status_code == 204
        assert ": heartbeat" not in list(lines)  # a heartbeat would show that the stream continued
        payout = world.create_payout("0004")
        assert [data["payout_id"] for _, data in events(others)] == [payout["id"]]


def test_a_stream_ends_when_its_merchant_is_deleted(world: World) -> None:
    with watching(world, timeout=60, types="payout.*") as lines:
        response = httpx.delete(
            f"{world.stack.api_url}/sandbox/v1/merchants/{world.merchant_id}",
            headers={"X-ADMIN-KEY": world.stack.admin_key},
            timeout=60,
        )
        assert response.status_code == 204
        assert ": heartbeat" not in list(lines)


# ---- streams served by the test's own process


CALL = Message([], [Note("api.request", {})])
Send = Callable[[Any], Awaitable[None]]


@pytest.fixture
async def streams(world: World) -> AsyncIterator[Streams]:
    """Yield the registry of streams, running in this process."""
    subscriber = LiveSubscriber(world.stack.redis_url)
    subscriber.start()
    redis = connect(world.stack.redis_url)
    yield Streams(redis, subscriber)
    await redis.aclose()
    await subscriber.close()


@contextlib.asynccontextmanager
async def serving(stream: EventStream, send: Send) -> AsyncIterator["asyncio.Task[None]"]:
    """Serve the stream to a client that stays connected, and yield the serving task."""

    async def receive() -> Any:
        await asyncio.Event().wait()

    served = asyncio.create_task(stream({}, receive, send))  # type: ignore[arg-type]  # it does not read the scope
    try:
        async with asyncio.timeout(30):
            yield served
    finally:
        served.cancel()
        await asyncio.wait([served])


async def accept_key() -> None:
    """Accept the key: nobody revokes it."""


class StuckClient:
    """The `send` of a client that stops reading after the headers."""

    def __init__(self) -> None:
        self.blocked = asyncio.Event()

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.blocked.set()
            await asyncio.Event().wait()


async def test_a_client_that_reads_too_slowly_is_disconnected(world: World, streams: Streams) -> None:
    """Its queue is bounded, and no other client waits for it."""
    stream, send = await streams.open(world.merchant_id, accept_key, None, None), StuckClient()
    async with serving(stream, send) as served:
        await send.blocked.wait()
        stream.receive(Message([], CALL.notes * MAX_QUEUED_EVENTS))
        assert not served.done()
        stream.receive(CALL)
        await served


async def test_a_revoked_key_ends_a_stream_even_if_its_client_does_not_read(world: World, streams: Streams) -> None:
    send = StuckClient()

    async def check_key() -> None:
        if send.blocked.is_set():
            raise Problem("INVALID_API_KEY")

    async with serving(await streams.open(world.merchant_id, check_key, None, None), send) as served:
        await served


async def test_a_revoked_key_ends_a_stream_even_if_events_never_stop(world: World, streams: Streams) -> None:
    sent: list[bytes] = []

    async def check_key() -> None:
        if len(sent) > 3:
            raise Problem("INVALID_API_KEY")

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))
        stream.receive(CALL)
        await asyncio.sleep(0)

    stream = await streams.open(world.merchant_id, check_key, None, None)
    async with serving(stream, send) as served:
        await served
    assert sent[-1] == b""  # the response is complete, not aborted


async def test_a_stream_survives_a_database_outage(world: World, streams: Streams) -> None:
    checks = asyncio.Semaphore(0)

    async def check_key() -> None:
        checks.release()
        raise unavailable()

    async def send(message: Any) -> None:
        pass

    async with serving(await streams.open(world.merchant_id, check_key, None, None), send) as served:
        for _ in range(3):
            await checks.acquire()
        assert not served.done()


async def test_a_stream_renews_its_slot_even_if_events_never_stop(
    world: World, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.worlds.stream.streams.HEARTBEAT", 0.05)
    redis = connect(world.stack.redis_url)

    async def slot_expiry() -> float:
        ((_, at),) = await redis.zrange(f"psp:streams:{world.merchant_id}", 0, -1, withscores=True)
        return float(at)

    async def send(message: Any) -> None:
        stream.receive(CALL)  # so that there is always another event to send
        await asyncio.sleep(0)

    stream = await streams.open(world.merchant_id, accept_key, None, None)
    initial = current = await slot_expiry()
    async with contextlib.aclosing(redis), serving(stream, send):
        while current == initial:
            await asyncio.sleep(0.02)
            current = await slot_expiry()


async def test_a_stream_sends_heartbeats_while_only_filtered_events_happen(
    world: World, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.worlds.stream.streams.HEARTBEAT", 0.5)
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    stream = await streams.open(world.merchant_id, accept_key, None, None, ["payout.*"])
    async with serving(stream, send):
        while b": heartbeat\n\n" not in sent:
            stream.receive(CALL)
            await asyncio.sleep(0)
