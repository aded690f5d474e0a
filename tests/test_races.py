"""Concurrent requests to two API processes never overspend a balance; a key, reference or cancellation takes effect once."""

from collections import Counter

import httpx

from tests.harness.load import run_concurrently
from tests.harness.world import World

THREADS = 50


def test_50_threads_never_overspend_one_balance(world: World) -> None:
    """A balance of 1,000,000.00 covers exactly 15 payouts of 66,000.00."""

    def create(number: int, client: httpx.Client) -> int:
        body = world.payout_body("0004", amount="66000.00")
        return client.post("/api/v1/payouts", json=body, headers={"X-IDEMPOTENCY-KEY": f"n{number}"}).status_code

    assert Counter(run_concurrently(world, create, THREADS)) == {201: 15, 422: THREADS - 15}
    assert world.balance() == ("10000.00", "990000.00")
    world.assert_clean()


def test_50_threads_with_one_idempotency_key_create_one_payout(world: World) -> None:
    body = world.payout_body("0004")

    def create(number: int, client: httpx.Client) -> tuple[int, str]:
        response = client.post("/api/v1/payouts", json=body, headers={"X-IDEMPOTENCY-KEY": "one"})
        return response.status_code, response.json().get("id", response.json().get("code"))

    responses = Counter(run_concurrently(world, create, THREADS))
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

    assert Counter(run_concurrently(world, create, THREADS)) == {201: 1, 409: THREADS - 1}
    world.assert_clean()


def test_only_one_of_50_threads_cancels_a_payout(world: World) -> None:
    payout = world.create_payout("0004")

    def cancel(number: int, client: httpx.Client) -> int:
        path = f"/api/v1/payouts/{payout['id']}/cancel"
        return client.post(path, headers={"X-IDEMPOTENCY-KEY": f"c{number}"}).status_code

    assert Counter(run_concurrently(world, cancel, THREADS)) == {200: 1, 409: THREADS - 1}
    assert world.path_of(payout["id"]) == ["PENDING", "CANCELLED"]
    assert world.balance() == ("1000000.00", "0.00")
    world.assert_clean()
