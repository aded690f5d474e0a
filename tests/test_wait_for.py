"""`wait_for` responds as soon as the payout reaches the status, for any number of waiting requests, with and without Redis."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from redis import Redis

from sandbox.domain.payout import Payout
from sandbox.infrastructure.live_feed import Message, Transition
from sandbox.infrastructure.live_subscriber import LiveSubscriber
from sandbox.payouts.reads import PayoutReads
from sandbox.payouts.waiting import PayoutWaits
from tests.harness.waiting import until
from tests.harness.world import World


def wait_for(world: World, payout_id: str, statuses: str, timeout: float) -> httpx.Response:
    return world.get(f"/api/v1/payouts/{payout_id}", wait_for=statuses, timeout=timeout)


def subscribed(world: World) -> int:
    """Return how many processes subscribe to the merchant's messages."""
    with Redis.from_url(world.stack.redis_url) as redis:
        ((_, count),) = redis.pubsub_numsub(f"psp:live:{world.merchant_id}")
    return int(count)


def test_it_responds_when_the_payout_reaches_the_status(world: World) -> None:
    payout = world.create_payout("0004")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait_for, world, payout["id"], "SUCCESS,FAILED", 30)
        until(lambda: subscribed(world) == 1)
        assert world.client.post(f"/sandbox/v1/payouts/{payout['id']}/simulate", json={"status": "PROCESSING"}).is_success
        assert not waiting.done()
        assert world.client.post(f"/sandbox/v1/payouts/{payout['id']}/simulate", json={"status": "FAILED"}).is_success
        response = waiting.result(20)
    assert (response.status_code, response.json()["status"]) == (200, "FAILED")
    until(lambda: subscribed(world) == 0)


def test_a_status_that_the_payout_has_already_left_ends_the_wait(world: World) -> None:
    """The payout is in PROCESSING only briefly. A request that waits for it gets the payout in its current status."""
    payout = world.create_payout("0001", requires_approval=True)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait_for, world, payout["id"], "PROCESSING", 30)
        until(lambda: subscribed(world) == 1)
        assert world.patch(f"/api/v1/payouts/{payout['id']}/approve").is_success
        assert waiting.result(20).json()["status"] == "SUCCESS"


@pytest.mark.parametrize(
    ("suffix", "fields", "last_status", "statuses"),
    [
        ("0001", {}, "SUCCESS", "PROCESSING"),
        ("0001", {}, "SUCCESS", "PENDING"),
        ("0005", {}, "ON_HOLD", "PROCESSING,FAILED"),
        ("0002", {}, "SUCCESS", "RETRY"),
        ("0003", {}, "FAILED", "SUCCESS"),
        ("0003", {}, "FAILED", "ON_HOLD,RETURNED"),
        ("0012", {}, "RETURNED", "SUCCESS"),
        ("0004", {"requires_approval": True}, "REJECTED", "SUCCESS"),
        ("0004", {}, "CANCELLED", "SUCCESS"),
    ],
)
def test_it_responds_at_once_if_the_status_was_reached_earlier_or_cannot_be_reached(
    world: World, suffix: str, fields: dict[str, Any], last_status: str, statuses: str
) -> None:
    payout_id = world.create_payout(suffix, **fields)["id"]
    if last_status in ("REJECTED", "CANCELLED"):
        assert world.client.post(f"/sandbox/v1/payouts/{payout_id}/simulate", json={"status": last_status}).is_success
    if last_status == "RETURNED":
        world.wait_for(payout_id, "SUCCESS")
        world.client.post("/sandbox/v1/clock/advance", json={"seconds": 60})
    world.wait_for(payout_id, last_status)
    # The server would wait for longer than this client, so a request that waits would fail.
    response = world.client.get(f"/api/v1/payouts/{payout_id}", params={"wait_for": statuses, "timeout": 30}, timeout=20)
    assert response.json()["status"] == last_status


def test_the_wait_ends_when_the_payout_ends_in_another_status(world: World) -> None:
    payout = world.create_payout("0004")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait_for, world, payout["id"], "SUCCESS", 30)
        until(lambda: subscribed(world) == 1)
        assert world.post(f"/api/v1/payouts/{payout['id']}/cancel").is_success
        assert waiting.result(20).json()["status"] == "CANCELLED"


def test_statuses_before_the_payout_was_reinitiated_do_not_end_a_wait(world: World) -> None:
    payout_id = world.create_payout("0004")["id"]
    for status in ("PROCESSING", "ON_HOLD", "FAILED"):
        assert world.client.post(f"/sandbox/v1/payouts/{payout_id}/simulate", json={"status": status}).is_success
    assert world.post(f"/api/v1/payouts/{payout_id}/reinitiate").is_success
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait_for, world, payout_id, "ON_HOLD,FAILED,PROCESSING", 30)
        until(lambda: subscribed(world) == 1)
        assert not waiting.done()
        assert world.client.post(f"/sandbox/v1/payouts/{payout_id}/simulate", json={"status": "PROCESSING"}).is_success
        assert waiting.result(20).json()["status"] == "PROCESSING"
    # The first change of the new attempt, to PENDING, counts.
    assert wait_for(world, payout_id, "PENDING", 30).json()["status"] == "PROCESSING"


def test_at_the_timeout_it_responds_with_the_current_status(world: World) -> None:
    payout = world.create_payout("0004")
    assert wait_for(world, payout["id"], "SUCCESS", 0).json() == payout
    assert wait_for(world, payout["id"], "SUCCESS", 0.3).json() == payout
    assert wait_for(world, payout["id"], "PENDING", 30).json() == payout


def test_it_responds_404_at_once_for_an_unknown_payout(world: World) -> None:
    assert wait_for(world, "00000000-0000-7000-8000-000000000000", "SUCCESS", 30).status_code == 404
    with World.create(world.stack) as other:
        assert wait_for(other, world.create_payout("0004")["id"], "SUCCESS", 30).status_code == 404


@pytest.mark.parametrize("held", ["wait_for", "claim"])
def test_the_wait_of_a_revoked_key_ends_with_401(world: World, held: str) -> None:
    payout_id = world.create_payout("0004")["id"]
    key = world.client.post("/sandbox/v1/keys", json={"role": "member"}).json()
    with ThreadPoolExecutor(1) as threads, httpx.Client(base_url=world.stack.api_url, timeout=60) as client:
        client.headers["X-API-KEY"] = key["api_key"]
        if held == "wait_for":
            waiting = threads.submit(client.get, f"/api/v1/payouts/{payout_id}?wait_for=SUCCESS&timeout=30")
        else:
            opened = client.post("/sandbox/v1/listeners", json={"forward_to": "http://127.0.0.1:9/"}).json()
            path = f"/sandbox/v1/listeners/{opened['id']}/claim"
            waiting = threads.submit(client.post, path, json={"max": 1, "wait_seconds": 30})
        until(lambda: subscribed(world))
        assert world.client.delete(f"/sandbox/v1/keys/{key['id']}").status_code == 204
        response = waiting.result()
    assert (response.status_code, response.json()["code"]) == (401, "INVALID_API_KEY")


async def test_a_thousand_waits_need_one_subscription_and_few_reads(
    world: World, pool: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The waits of one process share a subscription and their reads, and do not poll."""
    reads: list[int] = []
    shared = PayoutReads()
    read = shared._read

    async def counted(merchant_id: str, payout_ids: Sequence[str]) -> Mapping[str, Payout]:
        reads.append(len(payout_ids))
        return await read(merchant_id, payout_ids)

    monkeypatch.setattr(shared, "_read", counted)
    subscriber = LiveSubscriber(world.stack.redis_url)
    subscriber.start()
    waits = PayoutWaits(subscriber, shared)
    # With a frozen clock, due steps run when the payouts are created. Later, only `simulate` changes their status.
    assert world.client.post("/sandbox/v1/clock/freeze").is_success
    batch = [world.payout_body("0004", amount="1.00") for _ in range(100)]
    created = world.post("/api/v1/payouts/batch", {"payouts": batch}).json()["results"]
    ids = [result["payout"]["id"] for result in created]
    try:
        waiters = [asyncio.create_task(waits.wait(world.merchant_id, id_, ["CANCELLED"], 3600)) for id_ in ids * 10]
        await asyncio.to_thread(until, lambda: subscribed(world) == 1)
        await asyncio.to_thread(until, lambda: sum(reads) >= len(ids))
        before = len(reads)
        async with httpx.AsyncClient(base_url=world.stack.api_url, headers={"X-API-KEY": world.api_key}, timeout=60) as client:
            responses = await asyncio.gather(
                *(client.post(f"/sandbox/v1/payouts/{id_}/simulate", json={"status": "CANCELLED"}) for id_ in ids)
            )
        assert {response.status_code for response in responses} == {200}
        found = await asyncio.wait_for(asyncio.gather(*waiters), 60)
    finally:
        await subscriber.close()
    assert {payout.status for payout in found if payout is not None} == {"CANCELLED"}
    assert len(found) == 1000
    assert len(reads) - before <= len(ids)


async def test_the_payout_is_as_new_as_the_change_that_ended_the_wait(
    world: World, pool: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the payout changes between the read of the payout and that of its changes."""
    payout = world.create_payout("0004")
    path = f"/sandbox/v1/payouts/{payout['id']}/simulate"
    shared = PayoutReads()
    read = shared._read

    async def read_then_change(merchant_id: str, payout_ids: Sequence[str]) -> Mapping[str, Payout]:
        found = await read(merchant_id, payout_ids)
        if found[payout["id"]].status == "PENDING":
            assert (await asyncio.to_thread(world.client.post, path, json={"status": "PROCESSING"})).is_success
        return found

    monkeypatch.setattr(shared, "_read", read_then_change)
    waits = PayoutWaits(LiveSubscriber(world.stack.redis_url), shared)
    found = await waits.wait(world.merchant_id, payout["id"], ["PROCESSING"], 30)
    assert found is not None
    assert found.status == "PROCESSING"


async def test_without_redis_it_polls_the_database(world: World, pool: None) -> None:
    subscriber = LiveSubscriber("redis://127.0.0.1:9/0")
    subscriber.start()
    waits = PayoutWaits(subscriber, PayoutReads())
    payout = world.create_payout("0004")
    try:
        waiter = asyncio.create_task(waits.wait(world.merchant_id, payout["id"], ["FAILED"], 60))
        path = f"/sandbox/v1/payouts/{payout['id']}/simulate"
        assert (await asyncio.to_thread(world.client.post, path, json={"status": "FAILED"})).is_success
        found = await asyncio.wait_for(waiter, 30)
    finally:
        await subscriber.close()
    assert found is not None
    assert found.status == "FAILED"


async def test_after_a_lost_connection_it_subscribes_again_and_reads_missed_changes(world: World, pool: None) -> None:
    name = uuid.uuid4().hex
    subscriber = LiveSubscriber(f"{world.stack.redis_url}?client_name={name}")
    subscriber.start()
    waits = PayoutWaits(subscriber, PayoutReads())
    payout = world.create_payout("0004")
    try:
        waiter = asyncio.create_task(waits.wait(world.merchant_id, payout["id"], ["FAILED"], 60))
        await asyncio.to_thread(until, lambda: subscribed(world) == 1)
        with Redis.from_url(world.stack.redis_url) as redis:
            # Kill only this subscriber's connection: the API processes are subscribed for other tests.
            (own,) = (client["id"] for client in redis.client_list(_type="pubsub") if client["name"] == name)
            assert redis.client_kill_filter(_id=own) == 1
        path = f"/sandbox/v1/payouts/{payout['id']}/simulate"
        assert (await asyncio.to_thread(world.client.post, path, json={"status": "FAILED"})).is_success
        found = await asyncio.wait_for(waiter, 30)
    finally:
        await subscriber.close()
    assert found is not None
    assert found.status == "FAILED"


async def test_a_subscriber_that_waits_for_the_connection_receives_every_message_after_it(world: World) -> None:
    received: asyncio.Queue[Message | None] = asyncio.Queue()
    subscriber = LiveSubscriber(world.stack.redis_url)

    async def subscribe() -> bool:
        async with subscriber.subscribe(world.merchant_id, received.put_nowait, 60) as is_subscribed:
            while not received.empty():
                received.get_nowait()
            payout = await asyncio.to_thread(world.create_payout, "0004")
            transitions: list[Transition] = []
            while not transitions:  # messages about API calls have no transitions
                message = await asyncio.wait_for(received.get(), 60)
                assert message is not None
                transitions = message.transitions
            assert [transition.payout_id for transition in transitions] == [payout["id"]]
            return is_subscribed

    try:
        subscribing = asyncio.create_task(subscribe())
        await asyncio.sleep(0)  # let the task start before there is a connection
        subscriber.start()
        assert await subscribing
    finally:
        await subscriber.close()


async def test_a_subscriber_that_does_not_wait_learns_that_the_subscription_is_not_active() -> None:
    subscriber = LiveSubscriber("redis://127.0.0.1:9/0")
    subscriber.start()
    try:
        for max_wait in (0, 0.05):
            async with subscriber.subscribe("somebody", lambda _: None, max_wait) as is_subscribed:
                assert not is_subscribed
    finally:
        await subscriber.close()
