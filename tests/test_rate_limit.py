"""Never more than the limit in any window, across processes, and off unless it is asked for."""

import asyncio
import itertools
import random
import uuid

import httpx
import pytest

from sandbox.domain.errors import Problem
from sandbox.http.rate_limit import RateLimiter
from tests.harness.waiting import until
from tests.harness.world import Stack, World


def most_in_any(window: float, times: list[float]) -> int:
    """The largest number of these times that some window of so many seconds holds."""
    return max(sum(begin <= at < begin + window for at in times) for begin in times)


async def test_no_window_holds_more_than_the_limit_and_what_is_refused_passes_when_it_says(stack: Stack) -> None:
    limiter, bits, key = RateLimiter(stack.redis_url), random.Random(7), uuid.uuid4().hex
    now, passed = 1_800_000_000.0, list[float]()
    for _ in range(300):
        now = round(now + bits.choice((0, 0.001, 0.25, 3, 11, 29)), 3)
        wait = await limiter.acquire("test", key, key, 5, 60, now)
        if wait == 0:
            passed.append(now)
        else:
            assert len([at for at in passed if at > now - 60]) == 5, "refused though there was room"
            assert sorted(passed)[-5] + 60 == pytest.approx(now + wait), "it names the first moment that would pass"
    assert most_in_any(60, passed) == 5
    await limiter.close()


async def test_the_window_slides_it_does_not_jump(stack: Stack) -> None:
    limiter, key = RateLimiter(stack.redis_url), uuid.uuid4().hex
    waits = [
        await limiter.acquire("test", key, key, 2, 60, 1000.0 + second) for second in (0, 59, 59.5, 60, 60.5, 118.999, 119)
    ]
    assert waits == pytest.approx([0, 0, 0.5, 0, 58.5, 0.001, 0])
    await limiter.close()


async def test_a_process_whose_clock_is_behind_lets_no_more_through(stack: Stack) -> None:
    ahead, behind, key = RateLimiter(stack.redis_url), RateLimiter(stack.redis_url), uuid.uuid4().hex
    assert [await ahead.acquire("test", key, key, 2, 60, 2000.0) for _ in range(2)] == [0, 0]
    assert await behind.acquire("test", key, key, 2, 60, 1900.0) == 60
    await ahead.close()
    await behind.close()


async def test_many_at_once_are_counted_one_by_one(stack: Stack) -> None:
    limiters, key = [RateLimiter(stack.redis_url) for _ in range(4)], uuid.uuid4().hex
    waits = await asyncio.gather(*(limiter.acquire("test", key, key, 5, 60, 3000.0) for limiter in limiters for _ in range(25)))
    assert waits.count(0) == 5
    for limiter in limiters:
        await limiter.close()


async def test_without_redis_a_limit_that_must_hold_refuses_and_a_tests_limit_does_not() -> None:
    limiter = RateLimiter("redis://127.0.0.1:1")
    with pytest.raises(Problem) as refused:
        await limiter.enforce("vendor", "x", "m", 5)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "1")
    await limiter.enforce_if_redis_is_up("api", "x", "m", 5)
    await limiter.close()


def test_a_merchants_api_has_no_limit_unless_one_is_set(world: World) -> None:
    assert world.get("/sandbox/v1/settings").json()["rate_limit"] is None
    assert {world.get("/api/v1/balance").status_code for _ in range(60)} == {200}


def test_a_limit_holds_over_all_processes_and_spares_the_controls(stack: Stack) -> None:
    with World.create(stack) as world:
        # Before the key is used with the other process, which may remember for half a second that there was no limit.
        assert world.patch("/sandbox/v1/settings", {"rate_limit": 7.0}).status_code == 200
        statuses = []
        for _ in range(20):
            # A new connection each, so that both API processes are asked.
            answer = httpx.get(f"{stack.api_url}/api/v1/balance", headers={"X-API-KEY": world.api_key}, timeout=60)
            statuses.append(answer.status_code)
        assert (statuses.count(200), statuses.count(429)) == (7, 13)
        assert answer.json()["code"] == "RATE_LIMITED"
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert world.get("/sandbox/v1/settings").json()["rate_limit"] == 7
        assert world.get("/sandbox/v1/audit").status_code == 200


def test_a_limit_can_be_set_and_lifted(world: World) -> None:
    answer = world.client.patch("/sandbox/v1/settings", json={"rate_limit": 1})
    assert (answer.status_code, answer.json()["rate_limit"]) == (200, 1)
    until(lambda: world.get("/api/v1/balance").status_code == 429)
    key = str(uuid.uuid4())
    body = world.payout_body()
    assert world.post("/api/v1/payouts", body, key=key).status_code == 429
    assert world.client.patch("/sandbox/v1/settings", json={"rate_limit": None}).status_code == 200
    until(lambda: world.get("/api/v1/balance").status_code == 200)
    # The 429 was no outcome of the request: the same key is executed now.
    created = until(lambda: (found := world.post("/api/v1/payouts", body, key=key)).status_code == 201 and found)
    assert created
    assert "idempotent-replayed" not in created.headers


@pytest.mark.parametrize("wrong", [0, -1, 100_001, 1.5, "5", True])
def test_a_limit_that_is_none_is_refused(world: World, wrong: object) -> None:
    answer = world.client.patch("/sandbox/v1/settings", json={"rate_limit": wrong})
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")


def test_the_counting_of_windows_in_these_tests_is_right() -> None:
    assert most_in_any(60, [float(n) for n in itertools.islice(itertools.count(0, 12), 20)]) == 5
    assert most_in_any(60, [0, 59.9, 60]) == 2
