"""A move of the clock under an idempotency key goes to one time, however often it is cut off on its way."""

import asyncio
import json
import threading
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from sandbox.clock.advancer import ClockAdvancer
from sandbox.clock.service import ClockService
from sandbox.db.engine import close_pool, open_pool
from sandbox.domain.clock_target import seconds_on
from sandbox.domain.unit import IdempotencyKey
from tests.harness.receiver import Received, Receiver
from tests.harness.work import request_of, units_of_work
from tests.harness.world import Stack, World

ADVANCE = "/sandbox/v1/clock/advance"


@pytest.fixture
async def cut_off(stack: Stack) -> AsyncIterator[ClockService]:
    """The clock of a process that stops each move after its first step."""
    await open_pool(stack.database_url, 2)

    async def passed(merchant_id: str, by_hand: timedelta) -> None: ...

    work = units_of_work()
    yield ClockService(work, ClockAdvancer(work, steps=1), passed)
    await close_pool()


def freeze(world: World) -> None:
    assert world.client.post("/sandbox/v1/clock/freeze", json={"at": "2031-01-01T00:00:00Z"}).status_code == 200


def days_long(world: World) -> dict[str, Any]:
    """A payout that takes five days."""
    steps = [{"to": "PROCESSING"}, *({"to": to, "after": 40 * 3600} for to in ("RETRY", "PROCESSING", "SUCCESS"))]
    rule = {"name": "days", "match": {"suffix": "0001"}, "steps": steps}
    assert world.client.post("/sandbox/v1/scenarios", json=rule).status_code == 201
    return world.create_payout("0001")


async def test_an_advance_cut_off_days_on_its_way_still_knows_where_to(world: World, cut_off: ClockService) -> None:
    """A key lapses after a day of the merchant's time; the way of an advance may be longer than that."""
    freeze(world)
    payout = days_long(world)
    key = IdempotencyKey(str(uuid.uuid4()), b"one advance")
    context = request_of(world.merchant_id, key)
    runs: list[dict[str, Any]] = []
    while not runs or not runs[-1]["complete"]:
        response = await cut_off.advance(context, seconds_on(200 * 3600))
        runs.append(json.loads(response.body))
        assert len(runs) < 10
    assert len(runs) > 3, "it was cut off on its way, more than a day from where it began"
    assert runs[-1]["now"] == "2031-01-09T08:00:00.000Z", "200 hours from where the first one began"
    assert world.path_of(payout["id"]) == ["PENDING", "PROCESSING", "RETRY", "PROCESSING", "SUCCESS"]


async def test_a_key_that_is_on_its_way_is_refused_to_any_other_request(world: World, cut_off: ClockService) -> None:
    freeze(world)
    days_long(world)
    key = IdempotencyKey(str(uuid.uuid4()), b"one advance")
    context = request_of(world.merchant_id, key)
    response = await cut_off.advance(context, seconds_on(200 * 3600))
    assert not json.loads(response.body)["complete"]
    headers = {"X-IDEMPOTENCY-KEY": key.key}
    for path, body in (
        (ADVANCE, {"seconds": 7}),
        ("/sandbox/v1/clock/freeze", {}),
        ("/sandbox/v1/clock/resume", {}),
        ("/api/v1/payouts", world.payout_body("0001")),
    ):
        other = world.client.post(path, json=body, headers=headers)
        assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED"), path
    again = await cut_off.advance(context, seconds_on(200 * 3600))
    assert json.loads(again.body)["from"] == json.loads(response.body)["now"], "it goes on all the same"


async def test_a_running_clock_that_has_passed_the_time_by_itself_answers(world: World, cut_off: ClockService) -> None:
    """The process dies on the way, and the request is repeated later than it wanted to go."""
    days_long(world)
    key = IdempotencyKey(str(uuid.uuid4()), b"one advance")
    context = request_of(world.merchant_id, key)
    response = await cut_off.advance(context, seconds_on(200 * 3600))
    assert not json.loads(response.body)["complete"]
    await asyncio.to_thread(world.shift_clock, 300 * 3600)
    last = response
    while not json.loads(last.body)["complete"]:
        last = await cut_off.advance(context, seconds_on(200 * 3600))
        assert last.status == 200, last.body
    assert json.loads(last.body)["now"] > json.loads(response.body)["now"]
    world.assert_clean()


def test_the_same_request_while_it_runs_is_told_so(world: World, receiver: Receiver) -> None:
    """In either process of the API."""
    asked, free = threading.Event(), threading.Event()

    def response(_: Received) -> tuple[int, dict[str, str], bytes]:
        asked.set()
        free.wait(60)
        return 200, {}, b""

    receiver.respond = response
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.returned"]})
    freeze(world)
    world.create_payout("0012")
    headers = {"X-IDEMPOTENCY-KEY": str(uuid.uuid4())}

    def advance() -> Any:
        return world.client.post(ADVANCE, json={"seconds": 60}, headers=headers)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(advance)
        try:
            assert asked.wait(30)
            codes = {(response.status_code, response.json()["code"]) for response in (advance() for _ in range(4))}
            assert codes == {(409, "IDEMPOTENCY_KEY_IN_FLIGHT")}
        finally:
            free.set()
        assert first.result().json()["complete"]
    assert advance().headers["idempotent-replayed"] == "true"
