"""`wait_for` answers the moment the payout is there, for however many wait, with Redis or without."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from redis import Redis

from sandbox.db.engine import close_pool, open_pool
from sandbox.domain.payout import Payout
from sandbox.live.feed import Message, Transition
from sandbox.live.listener import LiveListener
from sandbox.payouts.reads import PayoutReads
from sandbox.payouts.waiting import PayoutWaits
from tests.harness.waiting import until
from tests.harness.world import Stack, World


def wait_for(world: World, payout_id: str, statuses: str, timeout: float) -> httpx.Response:
    return world.get(f"/api/v1/payouts/{payout_id}", wait_for=statuses, timeout=timeout)


def subscribed(world: World) -> int:
    """How many processes listen to the merchant."""
    with Redis.from_url(world.stack.redis_url) as redis:
        ((_, count),) = redis.pubsub_numsub(f"psp:live:{world.merchant_id}")
    return int(count)


def test_it_answers_when_the_payout_gets_there(world: World) -> None:
    payout = world.create_payout("0004")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait_for, world, payout["id"], "SUCCESS,FAILED", 30)
        until(lambda: subscribed(world) == 1)
        assert world.client.post(f"/sandbox/v1/payouts/{payout['id']}/simulate", json={"status": "PROCESSING"}).is_success
        assert not waiting.done()
        assert world.client.post(f"/sandbox/v1/payouts/{payout['id']}/simulate", json={"status": "FAILED"}).is_success
        answer = waiting.result(20)
    assert (answer.status_code, answer.json()["status"]) == (200, "FAILED")
    until(lambda: subscribed(world) == 0)


def test_a_state_that_was_short_is_enough(world: World) -> None:
    """A payout goes through PROCESSING in no time: whoever waits for it is told, with the payout as it is."""
    payout = world.create_payout("0001", requires_approval=True)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait_for, world, payout["id"], "PROCESSING", 30)
        until(lambda: subscribed(world) == 1)
        assert world.patch(f"/api/v1/payouts/{payout['id']}/approve").is_success
        assert waiting.result(20).json()["status"] == "SUCCESS"


@pytest.mark.parametrize(
    ("suffix", "members", "ends", "statuses"),
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
def test_a_state_that_has_passed_or_cannot_come_is_answered_at_once(
    world: World, suffix: str, members: dict[str, Any], ends: str, statuses: str
) -> None:
    payout_id = world.create_payout(suffix, **members)["id"]
    if ends in ("REJECTED", "CANCELLED"):
        assert world.client.post(f"/sandbox/v1/payouts/{payout_id}/simulate", json={"status": ends}).is_success
    if ends == "RETURNED":
        world.wait_for(payout_id, "SUCCESS")
        world.client.post("/sandbox/v1/clock/advance", json={"seconds": 60})
    world.wait_for(payout_id, ends)
    # Longer than a client waits: were it held, this would time out.
    answer = world.client.get(f"/api/v1/payouts/{payout_id}", params={"wait_for": statuses, "timeout": 30}, timeout=20)
    assert answer.json()["status"] == ends


def test_who_waits_is_told_that_the_payout_has_ended_otherwise(world: World) -> None:
    payout = world.create_payout("0004")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait_for, world, payout["id"], "SUCCESS", 30)
        until(lambda: subscribed(world) == 1)
        assert world.post(f"/api/v1/payouts/{payout['id']}/cancel").is_success
        assert waiting.result(20).json()["status"] == "CANCELLED"


def test_what_was_before_the_last_try_counts_no_more(world: World) -> None:
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
    # A new try is one as of its first change.
    assert wait_for(world, payout_id, "PENDING", 30).json()["status"] == "PROCESSING"


def test_at_the_end_it_answers_with_whatever_it_is(world: World) -> None:
    payout = world.create_payout("0004")
    assert wait_for(world, payout["id"], "SUCCESS", 0).json() == payout
    assert wait_for(world, payout["id"], "SUCCESS", 0.3).json() == payout
    assert wait_for(world, payout["id"], "PENDING", 30).json() == payout


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"wait_for": "DONE"}, "wait_for"),
        ({"wait_for": ""}, "wait_for"),
        ({"wait_for": "SUCCESS,"}, "wait_for"),
        ({"wait_for": "SUCCESS", "timeout": "31"}, "timeout"),
        ({"wait_for": "SUCCESS", "timeout": "-1"}, "timeout"),
        ({"wait_for": "SUCCESS", "timeout": "nan"}, "timeout"),
        ({"wait": "SUCCESS"}, "wait"),
    ],
)
def test_bad_ones_are_refused(world: World, params: dict[str, str], field: str) -> None:
    payout = world.create_payout("0004")
    answer = world.client.get(f"/api/v1/payouts/{payout['id']}", params=params)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, field), answer.text


def test_an_unknown_payout_is_not_waited_for(world: World) -> None:
    assert wait_for(world, "00000000-0000-7000-8000-000000000000", "SUCCESS", 30).status_code == 404
    with World.create(world.stack) as other:
        assert wait_for(other, world.create_payout("0004")["id"], "SUCCESS", 30).status_code == 404


@pytest.fixture
async def pool(stack: Stack) -> AsyncIterator[None]:
    await open_pool(stack.database_url, 2)
    yield
    await close_pool()


async def test_a_thousand_wait_and_all_are_answered_with_few_reads(
    world: World, pool: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process, one subscription; reads are shared, and nobody asks again and again while it waits."""
    reads: list[int] = []
    shared = PayoutReads()
    read = shared._read

    async def counted(merchant_id: str, payout_ids: Sequence[str]) -> Mapping[str, Payout]:
        reads.append(len(payout_ids))
        return await read(merchant_id, payout_ids)

    monkeypatch.setattr(shared, "_read", counted)
    listener = LiveListener(world.stack.redis_url)
    listener.start()
    waits = PayoutWaits(listener, shared)
    # Frozen, so that the batch that creates a payout settles it too, and only a simulation moves these.
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
            answers = await asyncio.gather(
                *(client.post(f"/sandbox/v1/payouts/{id_}/simulate", json={"status": "CANCELLED"}) for id_ in ids)
            )
        assert {answer.status_code for answer in answers} == {200}
        found = await asyncio.wait_for(asyncio.gather(*waiters), 60)
    finally:
        await listener.close()
    assert {payout.status for payout in found if payout is not None} == {"CANCELLED"}
    assert len(found) == 1000
    assert len(reads) - before <= len(ids)


async def test_without_redis_it_looks_by_itself(world: World, pool: None) -> None:
    listener = LiveListener("redis://127.0.0.1:9/0")
    listener.start()
    waits = PayoutWaits(listener, PayoutReads())
    payout = world.create_payout("0004")
    try:
        waiter = asyncio.create_task(waits.wait(world.merchant_id, payout["id"], ["FAILED"], 60))
        path = f"/sandbox/v1/payouts/{payout['id']}/simulate"
        assert (await asyncio.to_thread(world.client.post, path, json={"status": "FAILED"})).is_success
        found = await asyncio.wait_for(waiter, 30)
    finally:
        await listener.close()
    assert found is not None
    assert found.status == "FAILED"


async def test_a_lost_connection_is_made_again_and_what_was_missed_is_looked_up(world: World, pool: None) -> None:
    name = uuid.uuid4().hex
    listener = LiveListener(f"{world.stack.redis_url}?client_name={name}")
    listener.start()
    waits = PayoutWaits(listener, PayoutReads())
    payout = world.create_payout("0004")
    try:
        waiter = asyncio.create_task(waits.wait(world.merchant_id, payout["id"], ["FAILED"], 60))
        await asyncio.to_thread(until, lambda: subscribed(world) == 1)
        with Redis.from_url(world.stack.redis_url) as redis:
            # Its own and no other: the API processes listen for other tests.
            (own,) = (client["id"] for client in redis.client_list(_type="pubsub") if client["name"] == name)
            assert redis.client_kill_filter(_id=own) == 1
        path = f"/sandbox/v1/payouts/{payout['id']}/simulate"
        assert (await asyncio.to_thread(world.client.post, path, json={"status": "FAILED"})).is_success
        found = await asyncio.wait_for(waiter, 30)
    finally:
        await listener.close()
    assert found is not None
    assert found.status == "FAILED"


async def test_who_can_wait_hears_all_from_the_moment_that_the_connection_is_there(world: World) -> None:
    heard: asyncio.Queue[Message | None] = asyncio.Queue()
    listener = LiveListener(world.stack.redis_url)

    async def begin() -> bool:
        async with listener.subscribe(world.merchant_id, heard.put_nowait, 60) as is_subscribed:
            while not heard.empty():
                heard.get_nowait()
            payout = await asyncio.to_thread(world.create_payout, "0004")
            transitions: list[Transition] = []
            while not transitions:  # its calls of the API are told as well
                message = await asyncio.wait_for(heard.get(), 60)
                assert message is not None
                transitions = message.transitions
            assert [transition.payout_id for transition in transitions] == [payout["id"]]
            return is_subscribed

    try:
        hearing = asyncio.create_task(begin())
        await asyncio.sleep(0)  # it has begun, and there is no connection yet
        listener.start()
        assert await hearing
    finally:
        await listener.close()


async def test_who_cannot_wait_is_told_that_nothing_is_subscribed_yet() -> None:
    listener = LiveListener("redis://127.0.0.1:9/0")
    listener.start()
    try:
        for patience in (0, 0.05):
            async with listener.subscribe("somebody", lambda _: None, patience) as is_subscribed:
                assert not is_subscribed
    finally:
        await listener.close()
