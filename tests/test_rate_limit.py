"""No sliding window has more requests than the limit, across processes. A merchant's own limit is off by default."""

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


def max_in_any_window(window: float, times: list[float]) -> int:
    """Return the largest number of times in any window of `window` seconds."""
    return max(sum(begin <= at < begin + window for at in times) for begin in times)


async def test_no_window_exceeds_the_limit_and_a_refusal_names_the_earliest_retry(stack: Stack) -> None:
    limiter, bits, key = RateLimiter(stack.redis_url), random.Random(7), uuid.uuid4().hex
    now, admitted = 1_800_000_000.0, list[float]()
    for _ in range(300):
        now = round(now + bits.choice((0, 0.001, 0.25, 3, 11, 29)), 3)
        wait = await limiter.acquire("test", key, key, 5, 60, now)
        if wait == 0:
            admitted.append(now)
        else:
            assert len([at for at in admitted if at > now - 60]) == 5, "a request must be refused only if the window is full"
            assert sorted(admitted)[-5] + 60 == pytest.approx(now + wait), "the wait must end when the next request is allowed"
    assert max_in_any_window(60, admitted) == 5
    await limiter.close()


async def test_the_window_slides_continuously(stack: Stack) -> None:
    limiter, key = RateLimiter(stack.redis_url), uuid.uuid4().hex
    waits = [
        await limiter.acquire("test", key, key, 2, 60, 1000.0 + second) for second in (0, 59, 59.5, 60, 60.5, 118.999, 119)
    ]
    assert waits == pytest.approx([0, 0, 0.5, 0, 58.5, 0.001, 0])
    await limiter.close()


async def test_a_process_whose_clock_is_behind_admits_no_extra_requests(stack: Stack) -> None:
    ahead, behind, key = RateLimiter(stack.redis_url), RateLimiter(stack.redis_url), uuid.uuid4().hex
    assert [await ahead.acquire("test", key, key, 2, 60, 2000.0) for _ in range(2)] == [0, 0]
    assert await behind.acquire("test", key, key, 2, 60, 1900.0) == 60
    await ahead.close()
    await behind.close()


async def test_concurrent_requests_do_not_exceed_the_limit(stack: Stack) -> None:
    limiters, key = [RateLimiter(stack.redis_url) for _ in range(4)], uuid.uuid4().hex
    waits = await asyncio.gather(*(limiter.acquire("test", key, key, 5, 60, 3000.0) for limiter in limiters for _ in range(25)))
    assert waits.count(0) == 5
    for limiter in limiters:
        await limiter.close()


async def test_without_redis_a_strict_limit_refuses_and_an_optional_limit_admits() -> None:
    limiter = RateLimiter("redis://127.0.0.1:1")
    with pytest.raises(Problem) as refused:
        await limiter.enforce("vendor", "x", "m", 5)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "1")
    await limiter.enforce_if_redis_is_up("api", "x", "m", 5)
    await limiter.close()


def test_a_merchants_api_has_no_limit_unless_one_is_set(world: World) -> None:
    assert world.get("/sandbox/v1/settings").json()["rate_limit"] is None
    assert {world.get("/api/v1/balance").status_code for _ in range(60)} == {200}


def test_a_limit_covers_all_processes_and_exempts_the_sandbox_controls(stack: Stack) -> None:
    with World.create(stack) as world:
        # Set it before the other API process sees the key: a process can cache for a while that there is no limit.
        assert world.patch("/sandbox/v1/settings", {"rate_limit": 7.0}).status_code == 200
        statuses = []
        for _ in range(20):
            # Use a new connection each time, so that both API processes get requests.
            response = httpx.get(f"{stack.api_url}/api/v1/balance", headers={"X-API-KEY": world.api_key}, timeout=60)
            statuses.append(response.status_code)
        assert (statuses.count(200), statuses.count(429)) == (7, 13)
        assert response.json()["code"] == "RATE_LIMITED"
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert world.get("/sandbox/v1/settings").json()["rate_limit"] == 7
        assert world.get("/sandbox/v1/audit").status_code == 200


def test_a_limit_can_be_set_and_removed(world: World) -> None:
    response = world.client.patch("/sandbox/v1/settings", json={"rate_limit": 1})
    assert (response.status_code, response.json()["rate_limit"]) == (200, 1)
    until(lambda: world.get("/api/v1/balance").status_code == 429)
    key = str(uuid.uuid4())
    body = world.payout_body()
    assert world.post("/api/v1/payouts", body, key=key).status_code == 429
    assert world.client.patch("/sandbox/v1/settings", json={"rate_limit": None}).status_code == 200
    until(lambda: world.get("/api/v1/balance").status_code == 200)
    # The 429 was not stored under the key, so the same key now runs the request.
    created = until(lambda: (found := world.post("/api/v1/payouts", body, key=key)).status_code == 201 and found)
    assert created
    assert "idempotent-replayed" not in created.headers


def test_max_in_any_window_counts_correctly() -> None:
    assert max_in_any_window(60, [float(n) for n in itertools.islice(itertools.count(0, 12), 20)]) == 5
    assert max_in_any_window(60, [0, 59.9, 60]) == 2
