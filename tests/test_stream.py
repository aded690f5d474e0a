"""The stream tells everything as it happens, to as many as may watch, and never waits for a slow one."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest

from sandbox.domain.errors import Problem, unavailable
from sandbox.live.feed import Message, Note, connect
from sandbox.live.listener import LiveListener
from sandbox.live.streams import MAX_QUEUED_EVENTS, MAX_STREAMS, EventStream, Streams
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World

Event = tuple[str, dict[str, Any]]


@contextlib.contextmanager
def watching(world: World, api_key: str | None = None, **params: Any) -> Iterator[Iterator[str]]:
    """The lines of a stream that is listening, with the world's key or another."""
    headers = {"accept": "text/event-stream", "X-API-KEY": api_key or world.api_key}
    with world.client.stream("GET", "/sandbox/v1/stream", params=params, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines) == ": listening"
        yield lines


def events(lines: Iterator[str]) -> Iterator[Event]:
    """The events in the lines of a stream, as they come."""
    kind = ""
    for line in lines:
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))


def test_changes_and_attempts_are_told_as_they_happen(world: World, receiver: Receiver) -> None:
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


def test_what_a_clock_runs_is_told_too(world: World) -> None:
    world.client.post("/sandbox/v1/clock/freeze")
    world.create_payout("0012")
    with watching(world, limit=1, timeout=60, types="payout.*") as lines:
        world.client.post("/sandbox/v1/clock/advance", json={"seconds": 60})
        assert [kind for kind, _ in events(lines)] == ["payout.returned"]


def test_a_merchant_sees_nothing_of_another(world: World) -> None:
    with (
        World.create(world.stack, opening_balance="1000.00") as other,
        watching(world, limit=1, timeout=60, types="payout.*") as lines,
    ):
        other.wait_for(other.create_payout("0001")["id"], "SUCCESS")
        payout = world.create_payout("0004")
        assert [data["payout_id"] for _, data in events(lines)] == [payout["id"]]


def test_calls_of_the_api_are_told_without_what_is_in_them(world: World) -> None:
    with watching(world, limit=1, timeout=60, types="request") as lines:
        answer = world.post("/api/v1/payouts", world.payout_body("0004"))
        ((kind, call),) = list(events(lines))
    assert (kind, call["method"], call["path"], call["status"]) == ("request", "POST", "/api/v1/payouts", 201)
    assert call["request_id"] == answer.headers["x-request-id"]
    assert world.get(f"/sandbox/v1/requests/{call['id']}").json()["response_body"] == answer.text


def test_it_ends_after_the_seconds_asked_for(world: World) -> None:
    with watching(world, timeout=0.2) as lines:
        assert list(events(lines)) == []


def test_there_are_so_many_streams_and_no_more(world: World) -> None:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(watching(world, timeout=300)) for _ in range(MAX_STREAMS)]
        assert len(opened) == MAX_STREAMS
        refused = world.get("/sandbox/v1/stream", timeout=0)
        assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")
        assert int(refused.headers["retry-after"]) >= 1
        with World.create(world.stack) as other, watching(other, timeout=0):
            pass
    until(lambda: world.get("/sandbox/v1/stream", timeout=0).status_code == 200)


@pytest.mark.parametrize(
    "params", [{"limit": "0"}, {"limit": "x"}, {"timeout": "-1"}, {"timeout": "86401"}, {"types": "a;b"}, {"since": "1"}]
)
def test_bad_ones_are_refused(world: World, params: dict[str, str]) -> None:
    answer = world.client.get("/sandbox/v1/stream", params=params)
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")


def test_it_needs_a_key(world: World) -> None:
    assert httpx.get(f"{world.stack.api_url}/sandbox/v1/stream").status_code == 401


def test_it_ends_when_its_key_is_revoked_and_others_go_on(world: World) -> None:
    key = world.post("/sandbox/v1/keys", {"role": "member"}).json()
    with (
        watching(world, limit=1, timeout=60, types="payout.*") as others,
        watching(world, key["api_key"], timeout=60, types="payout.*") as lines,
    ):
        assert world.client.delete(f"/sandbox/v1/keys/{key['id']}").status_code == 204
        assert ": heartbeat" not in list(lines)  # it would show that it went on
        payout = world.create_payout("0004")
        assert [data["payout_id"] for _, data in events(others)] == [payout["id"]]


def test_it_ends_with_its_merchant(world: World) -> None:
    with watching(world, timeout=60, types="payout.*") as lines:
        answer = httpx.delete(
            f"{world.stack.api_url}/sandbox/v1/merchants/{world.merchant_id}",
            headers={"X-ADMIN-KEY": world.stack.admin_key},
            timeout=60,
        )
        assert answer.status_code == 204
        assert ": heartbeat" not in list(lines)


# ---- one stream, in the test's own process


CALL = Message([], [Note("api.request", {})])
Send = Callable[[Any], Awaitable[None]]


@pytest.fixture
async def streams(world: World) -> AsyncIterator[Streams]:
    """Streams that this process serves."""
    listener = LiveListener(world.stack.redis_url)
    listener.start()
    streams = Streams(world.stack.redis_url, listener)
    yield streams
    await streams.close()
    await listener.close()


@contextlib.asynccontextmanager
async def serving(stream: EventStream, send: Send) -> AsyncIterator["asyncio.Task[None]"]:
    """The task that serves the stream to a client that stays."""

    async def receive() -> Any:
        await asyncio.Event().wait()

    served = asyncio.create_task(stream({}, receive, send))  # type: ignore[arg-type]  # it looks at nothing of it
    try:
        async with asyncio.timeout(30):
            yield served
    finally:
        served.cancel()
        await asyncio.wait([served])


async def stands() -> None:
    """A key that nobody revokes."""


class Stuck:
    """The `send` of a client that reads nothing behind the headers."""

    def __init__(self) -> None:
        self.met = asyncio.Event()

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.met.set()
            await asyncio.Event().wait()


async def test_a_client_that_reads_too_slowly_is_cut_off(world: World, streams: Streams) -> None:
    """Nothing is kept for it without bound, and nobody else waits for it."""
    stream, send = await streams.open(world.merchant_id, stands, None, None), Stuck()
    async with serving(stream, send) as served:
        await send.met.wait()
        stream.receive(Message([], CALL.notes * MAX_QUEUED_EVENTS))
        assert not served.done()
        stream.receive(CALL)
        await served


async def test_a_revoked_key_ends_it_however_slow_its_client_is(world: World, streams: Streams) -> None:
    send = Stuck()

    async def check_key() -> None:
        if send.met.is_set():
            raise Problem("INVALID_API_KEY")

    async with serving(await streams.open(world.merchant_id, check_key, None, None), send) as served:
        await served


async def test_a_revoked_key_ends_it_however_much_happens(world: World, streams: Streams) -> None:
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
    assert sent[-1] == b""  # ended as it should, and not cut off


async def test_it_outlives_a_database_that_is_away(world: World, streams: Streams) -> None:
    asked = asyncio.Semaphore(0)

    async def check_key() -> None:
        asked.release()
        raise unavailable()

    async def send(message: Any) -> None:
        pass

    async with serving(await streams.open(world.merchant_id, check_key, None, None), send) as served:
        for _ in range(3):
            await asked.acquire()
        assert not served.done()


async def test_its_place_is_kept_however_much_happens(world: World, streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.live.streams.HEARTBEAT", 0.05)
    redis = connect(world.stack.redis_url)

    async def lapse() -> float:
        ((_, at),) = await redis.zrange(f"psp:streams:{world.merchant_id}", 0, -1, withscores=True)
        return float(at)

    async def send(message: Any) -> None:
        stream.receive(CALL)  # there is always something more to send
        await asyncio.sleep(0)

    stream = await streams.open(world.merchant_id, stands, None, None)
    taken = now = await lapse()
    async with contextlib.aclosing(redis), serving(stream, send):
        while now == taken:
            await asyncio.sleep(0.02)
            now = await lapse()


async def test_it_shows_that_it_lives_while_only_other_things_happen(
    world: World, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.live.streams.HEARTBEAT", 0.5)
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    stream = await streams.open(world.merchant_id, stands, None, None, ["payout.*"])
    async with serving(stream, send):
        while b": heartbeat\n\n" not in sent:
            stream.receive(CALL)
            await asyncio.sleep(0)
