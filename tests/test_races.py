"""Concurrent requests to two API processes never overspend a balance; a key, reference or cancellation takes effect once."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.harness.world import World

THREADS = 50


def run_concurrently(action: Callable[[int, httpx.Client], Any], world: World) -> list[Any]:
    """Run the action in 50 threads at the same moment, each with its own connection, and return the results."""
    gate = threading.Barrier(THREADS)

    def run(number: int) -> Any:
        with httpx.Client(base_url=world.stack.api_url, headers={"X-API-KEY": world.api_key}, timeout=120) as client:
            client.get("/health")  # connect before the race begins
            gate.wait(300)
            return action(number, client)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def test_50_threads_never_overspend_one_balance(world: World) -> None:
    """A balance of 1,000,000.00 covers exactly 15 payouts of 66,000.00."""

    def create(number: int, client: httpx.Client) -> int:
        body = world.payout_body("0004", amount="66000.00")
        return client.post("/api/v1/payouts", json=body, headers={"X-IDEMPOTENCY-KEY": f"n{number}"}).status_code

    assert Counter(run_concurrently(create, world)) == {201: 15, 422: THREADS - 15}
    assert world.balance() == ("10000.00", "990000.00")
    world.assert_clean()


def test_50_threads_with_one_idempotency_key_create_one_payout(world: World) -> None:
    body = world.payout_body("0004")

    def create(number: int, client: httpx.Client) -> tuple[int, str]:
        response = client.post("/api/v1/payouts", json=body, headers={"X-IDEMPOTENCY-KEY": "one"})
        return response.status_code, response.json().get("id", response.json().get("code"))

    responses = Counter(run_concurrently(create, world))
    created = {found for status, found in responses if status == 201}
    assert len(created) == 1
    assert {status for status, _ in responses} <= {201, 409}
    assert {found for status, found in responses if status == 409} <= {"IDEMPOTENCY_KEY_IN_FLIGHT"}
    assert len(world.get("/api/v1/payouts").json()["data"]) == 1
    assert world.balance() == ("999900.00", "100.00")
    world.assert_clean()


def test_50_threads_with_one_reference_create_one_payout(world: World) -> None:
    body = world.payout_body("0004")

    def create(number: int, client: httpx.Client) -> int:
        return client.post("/api/v1/payouts", json=body, headers={"X-IDEMPOTENCY-KEY": f"k{number}"}).status_code

    assert Counter(run_concurrently(create, world)) == {201: 1, 409: THREADS - 1}
    world.assert_clean()


def test_only_one_of_50_threads_cancels_a_payout(world: World) -> None:
    payout = world.create_payout("0004")

    def cancel(number: int, client: httpx.Client) -> int:
        path = f"/api/v1/payouts/{payout['id']}/cancel"
        return client.post(path, headers={"X-IDEMPOTENCY-KEY": f"c{number}"}).status_code

    assert Counter(run_concurrently(cancel, world)) == {200: 1, 409: THREADS - 1}
    assert world.path_of(payout["id"]) == ["PENDING", "CANCELLED"]
    assert world.balance() == ("1000000.00", "0.00")
    world.assert_clean()
