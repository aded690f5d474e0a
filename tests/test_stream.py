"""The stream tells everything as it happens, to as many as may watch, and never waits for a slow one."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sandbox.control.stream import MOST_STREAMS, MOST_WAITING, EventStream, Streams
from sandbox.live import Message, Note
from sandbox.live_listener import LiveListener
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World

Event = tuple[str, dict[str, Any]]


@contextlib.contextmanager
def watching(world: World, **params: Any) -> Iterator[Iterator[str]]:
    """The lines of a stream that is listening."""
    with world.client.stream("GET", "/sandbox/v1/stream", params=params, headers={"accept": "text/event-stream"}) as answer:
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
        opened = [stack.enter_context(watching(world, timeout=300)) for _ in range(MOST_STREAMS)]
        assert len(opened) == MOST_STREAMS
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


async def test_a_client_that_reads_too_slowly_is_cut_off(world: World) -> None:
    """Nothing is kept for it without bound, and nobody else waits for it."""
    listener = LiveListener(world.stack.redis_url)
    listener.start()
    streams = Streams(world.stack.redis_url, listener)
    stuck = asyncio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            stuck.set()
            await asyncio.Event().wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    try:
        stream: EventStream = await streams.open(world.merchant_id, None, None)
        served = asyncio.create_task(stream({}, receive, send))  # type: ignore[arg-type]  # it looks at nothing of it
        await asyncio.wait_for(stuck.wait(), 30)
        stream.hear(Message([], [Note("api.request", {})] * MOST_WAITING))
        assert not served.done()
        stream.hear(Message([], [Note("api.request", {})]))
        await asyncio.wait_for(served, 30)
    finally:
        await streams.close()
        await listener.close()
