"""A worker inserts deliveries already leased, within the endpoints' capacity, and sends them once, without a claim."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from sandbox.domain.events import NewEvent
from sandbox.domain.unit import UnitOfWork
from sandbox.infrastructure.db.engine import close_pool, open_pool
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.unit_of_work.claim import ClaimRequest
from sandbox.webhooks.delivery import deliverer as deliver
from sandbox.webhooks.delivery.attempt import AttemptRunner
from sandbox.webhooks.delivery.capacity import ENDPOINT_CALLS, MAX_CALLS_WHEN_SLOWED
from sandbox.webhooks.delivery.claims import DueClaim, claim_due
from sandbox.webhooks.delivery.deliverer import Deliverer
from sandbox.webhooks.delivery.leasing import DELIVERIES_PER_CALL
from sandbox.webhooks.delivery.outbox import LEASE, AttemptResult, ClaimedDelivery
from tests.harness.raw_server import sending
from tests.harness.receiver import Received, Receiver
from tests.harness.waiting import until
from tests.harness.work import units_of_work
from tests.harness.world import Stack, World

TYPE = "payout.created"
DELIVERIES = "SELECT status, attempts, leased_until IS NULL AS free FROM webhook_deliveries WHERE merchant_id = $1"
EXPIRE_LEASES = "UPDATE webhook_deliveries SET leased_until = now() WHERE merchant_id = $1 AND leased_until IS NOT NULL"
DELIVERED = {"status": "SUCCEEDED", "attempts": 1, "free": True}


class KnownSecret(SecretBox):
    """Opens every sealed secret as `secret`, because the tests do not have the sandbox's key."""

    def __init__(self, secret: str) -> None:
        super().__init__(bytes(32))
        self._secret = secret

    def open(self, sealed: bytes, context: str) -> str:
        return self._secret


@dataclass
class Subscriber:
    """A merchant with one endpoint, and a worker's deliverer in this process. The sandbox's own workers run too."""

    world: World
    endpoint_id: str
    deliverer: Deliverer
    claims: list[str]
    """The merchants for which the deliverer made a claim."""

    async def emit(
        self,
        count: int,
        error: Exception | None = None,
        before_commit: Callable[[], Awaitable[None]] | None = None,
        free_leased: bool = False,
    ) -> UnitOfWork:
        """Commit a unit with `count` events, as a worker does. Then raise `error`, as a lost connection would.

        `free_leased` ends the leases of all earlier deliveries, in the same transaction, so that no other worker claims them.
        """
        units: list[UnitOfWork] = []

        async def decide(conn: Any, unit: UnitOfWork) -> None:
            if free_leased:
                await conn.execute(EXPIRE_LEASES, unit.merchant_id)
            for _ in range(count):
                id_ = unit.ids.next()
                body = unit.event_body(id_, TYPE, None, b'{"id":"p"}')
                unit.emit(NewEvent(id_, TYPE, body, None, None, None, None, "api", None, None, None, "r"))

        async def committed(unit: UnitOfWork) -> None:
            units.append(unit)

        async def after_write(*_: Any) -> None:
            if before_commit is not None:
                await before_commit()

        with self.deliverer.leasing() as deliveries:
            await units_of_work(committed).run_transaction(
                ClaimRequest(self.world.merchant_id, 1),
                decide,
                before_write=deliveries,
                after_write=after_write,
            )
            if error is not None:
                raise error
        return units[0]

    def states(self) -> list[dict[str, Any]]:
        return self.world.stack.execute(DELIVERIES, self.world.merchant_id)

    async def until_attempted(self, count: int) -> None:
        """Wait until `count` deliveries exist, each with one recorded attempt."""
        await asyncio.to_thread(until, lambda: [state["attempts"] for state in self.states()] == [1] * count)

    async def until_done(self, count: int) -> None:
        """Wait until `count` deliveries exist, and check that each succeeded at its first attempt."""
        await self.until_attempted(count)
        assert await asyncio.to_thread(self.states) == [DELIVERED] * count


@pytest.fixture
async def subscriber(
    stack: Stack, world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Subscriber]:
    endpoint = await asyncio.to_thread(create_endpoint, world, receiver.url)
    claims: list[str] = []

    async def claim(merchant_id: str, *capacity: Any) -> Any:
        claims.append(merchant_id)
        return await claim_due(merchant_id, *capacity)

    monkeypatch.setattr(deliver, "claim_due", claim)
    await open_pool(stack.database_url, 4)
    async with sending() as sender:
        deliverer = Deliverer(AttemptRunner(sender, KnownSecret(endpoint["secret"])))
        yield Subscriber(world, endpoint["id"], deliverer, claims)
        await deliverer.stop(10)
    await close_pool()


def create_endpoint(world: World, url: str) -> Any:
    return world.post("/api/v1/webhook-endpoints", {"url": url, "event_types": [TYPE]}).json()


class BlockedReceiver:
    """Blocks a receiver's responses until `unblocked` is set."""

    def __init__(self, receiver: Receiver) -> None:
        self.unblocked = threading.Event()
        self.arrived = 0
        receiver.respond = self._respond

    def _respond(self, _: Received) -> tuple[int, dict[str, str], bytes]:
        self.arrived += 1
        self.unblocked.wait(60)
        return 200, {}, b""

    async def until_arrived(self, count: int) -> None:
        await asyncio.to_thread(until, lambda: self.arrived >= count)


def sent(receiver: Receiver) -> Counter[str]:
    """Return how often each event was received."""
    return Counter(received.headers["webhook-id"] for received in receiver.received)


async def test_leased_deliveries_are_sent_once_and_no_other_worker_claims_them(
    subscriber: Subscriber, receiver: Receiver
) -> None:
    blocked = BlockedReceiver(receiver)
    unit = await subscriber.emit(10)
    await blocked.until_arrived(10)
    # They are due and their calls are in progress. The sandbox's own workers claim in the same way.
    assert list((await claim_due(unit.merchant_id, {}, 100)).deliveries) == []
    blocked.unblocked.set()
    await subscriber.until_done(10)
    assert sent(receiver) == Counter(event.id for event in unit.events)
    assert subscriber.claims == []


async def test_deliveries_beyond_the_capacity_are_inserted_without_a_lease_and_claimed(
    subscriber: Subscriber, receiver: Receiver
) -> None:
    blocked = BlockedReceiver(receiver)
    room = ENDPOINT_CALLS * DELIVERIES_PER_CALL
    count = room + 100
    unit = await subscriber.emit(count)
    leased = [delivery.leased_until is not None for delivery in unit.deliveries]
    assert leased == [True] * sum(leased) + [False] * (count - sum(leased)), "the earliest deliveries must be leased first"
    assert room // 2 < sum(leased) <= room
    another = await subscriber.emit(1)
    assert another.deliveries[0].leased_until is None, "nothing must be leased until a call ends"
    blocked.unblocked.set()
    await subscriber.until_done(count + 1)  # the sandbox's own workers claim the rest
    assert sent(receiver) == Counter(event.id for event in (*unit.events, *another.events))


async def test_older_deliveries_are_claimed_in_the_same_transaction_and_sent_first(
    subscriber: Subscriber, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempts are made one at a time, so the requests arrive in the order in which they are sent."""
    attempts, one_at_a_time = subscriber.deliverer.attempts, asyncio.Lock()
    attempt = attempts.attempt

    async def attempt_alone(merchant_id: str, claimed: ClaimedDelivery) -> AttemptResult:
        async with one_at_a_time:
            return await attempt(merchant_id, claimed)

    monkeypatch.setattr(attempts, "attempt", attempt_alone)
    with pytest.raises(ConnectionError):
        await subscriber.emit(1, ConnectionError("lost during COMMIT"))
    unit = await subscriber.emit(3, free_leased=True)
    await subscriber.until_done(4)
    older, *new = [received.headers["webhook-id"] for received in receiver.received]
    assert new == [event.id for event in unit.events]
    assert older not in new
    assert subscriber.claims == []


async def test_new_deliveries_are_not_leased_if_older_ones_need_the_capacity(
    subscriber: Subscriber, receiver: Receiver
) -> None:
    with pytest.raises(ConnectionError):
        await subscriber.emit(MAX_CALLS_WHEN_SLOWED, ConnectionError("lost during COMMIT"))
    capacity = subscriber.deliverer.attempts._capacity
    capacity.slow_down(subscriber.world.merchant_id, subscriber.endpoint_id, time.monotonic() + 60)
    unit = await subscriber.emit(1, free_leased=True)
    assert unit.deliveries[0].leased_until is None
    await subscriber.until_done(MAX_CALLS_WHEN_SLOWED + 1)
    assert set(sent(receiver).values()) == {1}


async def test_an_endpoint_that_asked_to_slow_down_gets_two_leased_deliveries(
    subscriber: Subscriber, receiver: Receiver
) -> None:
    receiver.respond = lambda _: (429, {"retry-after": "60"}, b"")
    await subscriber.emit(1)
    await subscriber.until_attempted(1)
    unit = await subscriber.emit(10)
    assert sum(delivery.leased_until is not None for delivery in unit.deliveries) == 2


async def test_after_an_error_nothing_is_sent_and_no_capacity_stays_reserved(
    subscriber: Subscriber, receiver: Receiver
) -> None:
    """The transaction can still have been committed. Then another worker sends the deliveries after the leases expire."""
    with pytest.raises(ConnectionError):
        await subscriber.emit(10, ConnectionError("lost during COMMIT"))
    with subscriber.deliverer.attempts.reserve_capacity(subscriber.world.merchant_id) as free:
        assert free.by_endpoint == {}, "no call must count as in progress"
    assert list((await claim_due(subscriber.world.merchant_id, {}, 100)).deliveries) == []
    assert receiver.received == []
    await asyncio.to_thread(subscriber.world.stack.execute, EXPIRE_LEASES, subscriber.world.merchant_id)
    await subscriber.until_done(10)
    assert set(sent(receiver).values()) == {1}
    assert subscriber.claims == []


async def test_a_worker_that_stops_during_the_commit_sends_nothing(subscriber: Subscriber, receiver: Receiver) -> None:
    """Its sender is closed next, so an attempt would fail. Another worker sends after the leases expire."""
    await subscriber.emit(3, before_commit=lambda: subscriber.deliverer.stop(10))
    assert receiver.received == []
    await asyncio.to_thread(subscriber.world.stack.execute, EXPIRE_LEASES, subscriber.world.merchant_id)
    await subscriber.until_done(3)
    assert list(sent(receiver).values()) == [1] * 3


async def test_an_attempt_that_could_outlast_its_lease_is_not_made(
    subscriber: Subscriber, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The COMMIT took too long: by the end of the attempt, another worker could have claimed the delivery."""
    monkeypatch.setattr(deliver, "MAX_ATTEMPT_DURATION", LEASE)
    await subscriber.emit(3)
    with subscriber.deliverer.attempts.reserve_capacity(subscriber.world.merchant_id) as free:
        assert free.by_endpoint == {}, "no call must count as in progress"
    assert receiver.received == []


async def test_a_slow_endpoint_gets_the_rest_of_a_sequence_in_parallel(
    subscriber: Subscriber, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "_SEQUENCE_SECONDS", 0.0)  # as if each call had taken longer
    unit = await subscriber.emit(100)
    assert all(delivery.leased_until is not None for delivery in unit.deliveries)
    await subscriber.until_done(100)
    assert sent(receiver) == Counter(event.id for event in unit.events)


async def test_leases_and_a_claim_at_the_same_time_stay_within_the_endpoint_limit(
    subscriber: Subscriber, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    claiming, finish = asyncio.Event(), asyncio.Event()
    claimable: list[int] = []

    async def claim(merchant_id: str, capacity: Mapping[str, int], default: int) -> Any:
        claimable.append(capacity.get(subscriber.endpoint_id, default))
        claiming.set()
        await finish.wait()
        return DueClaim()

    monkeypatch.setattr(deliver, "claim_due", claim)
    blocked = BlockedReceiver(receiver)
    subscriber.deliverer.wake(subscriber.world.merchant_id)
    await claiming.wait()
    count = ENDPOINT_CALLS * DELIVERIES_PER_CALL
    unit = await subscriber.emit(count)
    assert claimable[0] > 0
    assert 0 < sum(delivery.leased_until is not None for delivery in unit.deliveries) <= count - claimable[0]
    finish.set()
    blocked.unblocked.set()
    await subscriber.until_done(count)


async def test_nothing_is_leased_for_a_frozen_merchant_or_a_disabled_endpoint(subscriber: Subscriber) -> None:
    world = subscriber.world
    path = f"/api/v1/webhook-endpoints/{subscriber.endpoint_id}"
    assert (await asyncio.to_thread(world.patch, path, {"status": "DISABLED"})).status_code == 200
    unit = await subscriber.emit(3)
    assert [delivery.leased_until for delivery in unit.deliveries] == [None] * 3
    assert [state["status"] for state in await asyncio.to_thread(subscriber.states)] == ["PAUSED"] * 3
    assert (await asyncio.to_thread(world.patch, path, {"status": "ENABLED"})).status_code == 200
    assert (await asyncio.to_thread(world.post, "/sandbox/v1/clock/freeze", {})).status_code == 200
    unit = await subscriber.emit(3)
    assert [delivery.leased_until for delivery in unit.deliveries] == [None] * 3
