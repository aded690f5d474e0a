"""A clock advance under an idempotency key keeps its target time, even if it is interrupted and repeated."""

import asyncio
import json
import threading
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from sandbox.domain.unit import IdempotencyKey
from sandbox.infrastructure.db.engine import close_pool, open_pool
from sandbox.worlds.clock.advancer import ClockAdvancer
from sandbox.worlds.clock.service import AdvanceClockBody, ClockService
from tests.harness.receiver import Received, Receiver
from tests.harness.work import request_of, units_of_work
from tests.harness.world import Stack, World

ADVANCE = "/sandbox/v1/clock/advance"


@pytest.fixture
async def interrupted_clock(stack: Stack) -> AsyncIterator[ClockService]:
    """Yield a clock service that stops each advance after its first step."""
    await open_pool(stack.database_url, 2)

    async def ignore_advance(merchant_id: str, by: timedelta) -> None: ...

    work = units_of_work()
    yield ClockService(work, ClockAdvancer(work, steps=1), ignore_advance)
    await close_pool()


def freeze(world: World) -> None:
    assert world.client.post("/sandbox/v1/clock/freeze", json={"at": "2031-01-01T00:00:00Z"}).status_code == 200


def create_five_day_payout(world: World) -> dict[str, Any]:
    """Create a payout that takes five days to settle."""
    steps = [{"to": "PROCESSING"}, *({"to": to, "after": 40 * 3600} for to in ("RETRY", "PROCESSING", "SUCCESS"))]
    rule = {"name": "days", "match": {"suffix": "0001"}, "steps": steps}
    assert world.client.post("/sandbox/v1/scenarios", json=rule).status_code == 201
    return world.create_payout("0001")


async def test_an_interrupted_advance_keeps_its_target_even_after_days(world: World, interrupted_clock: ClockService) -> None:
    """A key expires after a day of the merchant's time, but an advance may be longer than a day."""
    freeze(world)
    payout = create_five_day_payout(world)
    key = IdempotencyKey(str(uuid.uuid4()), b"one advance")
    context = request_of(world.merchant_id, key)
    runs: list[dict[str, Any]] = []
    while not runs or not runs[-1]["complete"]:
        result = await interrupted_clock.advance_clock(context, AdvanceClockBody(seconds=200 * 3600))
        runs.append(json.loads(result.body))
        assert len(runs) < 10
    assert len(runs) > 3, "the advance must be interrupted more than a day after its start"
    assert runs[-1]["now"] == "2031-01-09T08:00:00.000Z", "the last run must end 200 hours after the start of the first run"
    assert world.path_of(payout["id"]) == ["PENDING", "PROCESSING", "RETRY", "PROCESSING", "SUCCESS"]


async def test_the_key_of_an_interrupted_advance_is_refused_for_other_requests(
    world: World, interrupted_clock: ClockService
) -> None:
    freeze(world)
    create_five_day_payout(world)
    key = IdempotencyKey(str(uuid.uuid4()), b"one advance")
    context = request_of(world.merchant_id, key)
    result = await interrupted_clock.advance_clock(context, AdvanceClockBody(seconds=200 * 3600))
    assert not json.loads(result.body)["complete"]
    headers = {"X-IDEMPOTENCY-KEY": key.key}
    for path, body in (
        (ADVANCE, {"seconds": 7}),
        ("/sandbox/v1/clock/freeze", {}),
        ("/sandbox/v1/clock/resume", {}),
        ("/api/v1/payouts", world.payout_body("0001")),
    ):
        other = world.client.post(path, json=body, headers=headers)
        assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED"), path
    again = await interrupted_clock.advance_clock(context, AdvanceClockBody(seconds=200 * 3600))
    assert json.loads(again.body)["from"] == json.loads(result.body)["now"], (
        "the refused requests must not prevent the advance from resuming"
    )


async def test_a_repeated_advance_completes_if_the_running_clock_has_passed_its_target(
    world: World, interrupted_clock: ClockService
) -> None:
    """The process dies during the advance, and the request is repeated after the target time."""
    create_five_day_payout(world)
    key = IdempotencyKey(str(uuid.uuid4()), b"one advance")
    context = request_of(world.merchant_id, key)
    result = await interrupted_clock.advance_clock(context, AdvanceClockBody(seconds=200 * 3600))
    assert not json.loads(result.body)["complete"]
    await asyncio.to_thread(world.shift_clock, 300 * 3600)
    last = result
    while not json.loads(last.body)["complete"]:
        last = await interrupted_clock.advance_clock(context, AdvanceClockBody(seconds=200 * 3600))
        assert last.status == 200, last.body
    assert json.loads(last.body)["now"] > json.loads(result.body)["now"]
    world.assert_clean()


def test_a_repeat_of_a_running_advance_is_refused(world: World, receiver: Receiver) -> None:
    """It does not matter which API process receives the repeat."""
    request_arrived, may_respond = threading.Event(), threading.Event()

    def respond(_: Received) -> tuple[int, dict[str, str], bytes]:
        request_arrived.set()
        may_respond.wait(60)
        return 200, {}, b""

    receiver.respond = respond
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.returned"]})
    freeze(world)
    world.create_payout("0012")
    headers = {"X-IDEMPOTENCY-KEY": str(uuid.uuid4())}

    def advance() -> Any:
        return world.client.post(ADVANCE, json={"seconds": 60}, headers=headers)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(advance)
        try:
            assert request_arrived.wait(30)
            codes = {(response.status_code, response.json()["code"]) for response in (advance() for _ in range(4))}
            assert codes == {(409, "IDEMPOTENCY_KEY_IN_FLIGHT")}
        finally:
            may_respond.set()
        assert first.result().json()["complete"]
    assert advance().headers["idempotent-replayed"] == "true"
