"""In a frozen world an endpoint gets its deliveries one at a time, and a claimed delivery that is not attempted is released."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from sandbox.domain.clock import RUNNING, Clock
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.webhooks.delivery import attempt
from sandbox.webhooks.delivery import deliverer as deliver
from sandbox.webhooks.delivery.claims import FROZEN_CLAIM_LIMIT, DueClaim
from sandbox.webhooks.delivery.deliverer import Deliverer
from sandbox.webhooks.delivery.outbox import LEASE, AttemptResult, ClaimedDelivery, ClaimedEndpoint, Exchange
from sandbox.webhooks.outbound.sender import SendResult, WebhookSender
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World

AT = datetime(2031, 1, 1, tzinfo=UTC)
FROZEN = Clock(AT, timedelta(0))


def claimed(number: int, endpoint_id: str = "e", lease: timedelta = LEASE, clock: Clock = FROZEN) -> ClaimedDelivery:
    return ClaimedDelivery(
        id=f"d{number}",
        event_id=f"v{number}",
        endpoint_id=endpoint_id,
        endpoint=ClaimedEndpoint("http://127.0.0.1:9/", (b"",), "fast"),
        scheduled_attempts=0,
        attempt=1,
        event_type="payout.created",
        body=b"{}",
        request_id="r",
        lease=datetime.now(UTC) + lease,
        clock=clock,
        traceparent="",
    )


def recorded(delivery: ClaimedDelivery, status: int) -> AttemptResult:
    exchange = Exchange("v1,x", 1, SendResult(status, {}, "", None, 1))
    return AttemptResult(delivery, 1, "PENDING" if status == 500 else "SUCCEEDED", None, AT, exchange, gone=status == 410)


class ScriptedAttempts(attempt.AttemptRunner):
    """Makes no requests. Each attempt gets the next of the given statuses."""

    def __init__(self, sender: WebhookSender, statuses: Sequence[int]) -> None:
        super().__init__(sender, SecretBox(bytes(32)))
        self.statuses = list(statuses)

    async def attempt(self, merchant_id: str, claimed: ClaimedDelivery) -> AttemptResult:
        return recorded(claimed, self.statuses.pop(0))


def test_deliveries_are_sequential_per_endpoint_only_in_a_frozen_world() -> None:
    frozen = [claimed(1, "a"), claimed(2, "b"), claimed(3, "a"), claimed(4, "b")]
    assert [[delivery.id for delivery in sequence] for sequence in attempt.split_into_sequences(frozen)] == [
        ["d1", "d3"],
        ["d2", "d4"],
    ]
    running = [claimed(1, "a", clock=RUNNING), claimed(2, "a", clock=RUNNING)]
    assert [[delivery.id for delivery in sequence] for sequence in attempt.split_into_sequences(running)] == [["d1"], ["d2"]]


@pytest.mark.parametrize(
    ("statuses", "lease", "may_continue", "attempted"),
    [
        ([200, 500, 200], LEASE, True, 3),
        # The first delivery is always attempted, so that there is progress. An attempt that could outlast its lease is not
        # started, because another worker could claim the delivery as well.
        ([200, 200, 200], timedelta(seconds=15), True, 1),
        ([200, 410, 200], LEASE, True, 2),
        ([200, 200, 200], LEASE, False, 1),
    ],
    ids=["all", "the lease nearly expires", "the endpoint is gone", "the worker stops"],
)
async def test_claimed_deliveries_that_are_not_attempted_are_released(
    monkeypatch: pytest.MonkeyPatch, statuses: list[int], lease: timedelta, may_continue: bool, attempted: int
) -> None:
    released: list[Any] = []

    async def release_claims(merchant_id: str, rest: Sequence[ClaimedDelivery]) -> None:
        released.extend(delivery.id for delivery in rest)

    monkeypatch.setattr(attempt, "release_claims", release_claims)
    sender = WebhookSender()
    try:
        attempted_ids: list[str] = []
        run = [claimed(number, lease=lease) for number in range(3)]
        attempts = ScriptedAttempts(sender, statuses)
        attempts.begin("m", [run])
        remaining = await attempts.attempt_sequence(
            "m", run, lambda done: attempted_ids.append(done.claimed.id), lambda: may_continue
        )
    finally:
        await sender.close()
    ids = [delivery.id for delivery in run]
    assert (attempted_ids, released, remaining) == (ids[:attempted], ids[attempted:], 3 - attempted)


@pytest.mark.parametrize(("due", "claims"), [(3, 1), (FROZEN_CLAIM_LIMIT, 2)])
async def test_a_frozen_world_is_claimed_again_only_if_a_claim_could_not_take_all(
    monkeypatch: pytest.MonkeyPatch, due: int, claims: int
) -> None:
    made: list[str] = []

    async def claim(merchant_id: str, *_: Any) -> DueClaim:
        made.append(merchant_id)
        return DueClaim([claimed(number) for number in range(due)] if len(made) == 1 else (), enabled=frozenset({"e"}))

    async def record(merchant_id: str, results: Sequence[AttemptResult]) -> None:
        pass

    monkeypatch.setattr(deliver, "claim_due", claim)
    sender = WebhookSender()
    try:
        attempts = ScriptedAttempts(sender, [200] * due)
        monkeypatch.setattr(attempts, "record", record)
        deliverer = Deliverer(attempts)
        deliverer.wake("m")
        await deliverer._merchants["m"].task
    finally:
        await sender.close()
    assert (len(made), attempts.statuses) == (claims, [])


async def test_an_endpoint_that_was_busy_while_its_results_were_recorded_is_claimed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing else would wake the merchant for what became due meanwhile: the results are recorded already."""
    made: list[str] = []
    rechecks: list[str] = []
    second_claim, recorded_now = asyncio.Event(), asyncio.Event()

    class Attempts(ScriptedAttempts):
        async def attempt(self, merchant_id: str, claimed: ClaimedDelivery) -> AttemptResult:
            await second_claim.wait()
            return await super().attempt(merchant_id, claimed)

        async def record(self, merchant_id: str, results: Sequence[AttemptResult]) -> None:
            recorded_now.set()

        def recheck_soon(self, merchant_id: str) -> None:
            rechecks.append(merchant_id)

    async def claim(merchant_id: str, *_: Any) -> DueClaim:
        made.append(merchant_id)
        if len(made) == 1:
            deliverer.wake("m")  # for the next commit
            return DueClaim([claimed(1)], enabled=frozenset({"e"}))
        if len(made) == 2:
            second_claim.set()
            await recorded_now.wait()
            return DueClaim(busy=frozenset({"e"}), enabled=frozenset({"e"}))
        return DueClaim(enabled=frozenset({"e"}))

    monkeypatch.setattr(deliver, "claim_due", claim)
    sender = WebhookSender()
    try:
        deliverer = Deliverer(Attempts(sender, [200]))
        deliverer.wake("m")
        await deliverer._merchants["m"].task
    finally:
        await sender.close()
    assert (len(made), rechecks) == (3, [])


async def test_a_failed_attempt_at_an_ordered_endpoint_releases_later_deliveries_of_its_payout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released: list[str] = []

    async def release_claims(merchant_id: str, rest: Sequence[ClaimedDelivery]) -> None:
        released.extend(delivery.id for delivery in rest)

    monkeypatch.setattr(attempt, "release_claims", release_claims)
    sender = WebhookSender()
    try:
        attempted: list[str] = []
        run = [msgspec.structs.replace(claimed(number), payout_id="ab"[number % 2]) for number in range(5)]
        attempts = ScriptedAttempts(sender, [200, 500, 200, 200])
        attempts.begin("m", [run])
        remaining = await attempts.attempt_sequence("m", run, lambda done: attempted.append(done.claimed.id))
    finally:
        await sender.close()
    assert (attempted, released, remaining) == (["d0", "d1", "d2", "d4"], ["d3"], 1)


def test_an_endpoint_that_responds_with_410_gets_nothing_more(world: World, receiver: Receiver) -> None:
    receiver.respond = lambda _: (410, {}, b"")
    endpoint = world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.created"]}).json()
    world.client.post("/sandbox/v1/clock/freeze", json={})
    batch = {"payouts": [world.payout_body("0004") for _ in range(20)]}
    assert world.post("/api/v1/payouts/batch", batch).status_code == 200
    assert world.client.post("/sandbox/v1/drain").json()["drained"]
    path = f"/api/v1/webhook-endpoints/{endpoint['id']}"
    assert world.get(path).json()["status"] == "DISABLED"
    assert "410" in world.get(path).json()["disabled_reason"]
    assert len(receiver.received) == 1
    # Once it is enabled again, it gets the remaining deliveries in order.
    receiver.respond = lambda _: (200, {}, b"")
    assert world.patch(path, {"status": "ENABLED"}).json()["disabled_reason"] is None
    assert world.client.post("/sandbox/v1/drain").json()["drained"]
    ids = [received.headers["webhook-id"] for received in receiver.received]
    assert len(ids) == 20
    assert ids == sorted(ids)


def test_deliveries_leased_by_a_dead_process_are_made_when_the_lease_expires(world: World, receiver: Receiver) -> None:
    """They are made in order, by a worker that found the endpoint busy earlier, without any request that wakes it."""
    world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.created"]})
    world.client.post("/sandbox/v1/clock/freeze", json={})
    first = world.create_payout("0004")["id"]
    until(lambda: world.get("/api/v1/webhook-deliveries", status="SUCCEEDED").json()["data"])
    world.stack.execute(
        "UPDATE webhook_deliveries SET status = 'PENDING', next_attempt_at = created_at, leased_until = now() + interval '2 s' "
        "WHERE merchant_id = $1",
        world.merchant_id,
    )
    second = world.create_payout("0004")["id"]
    until(lambda: len(receiver.received) == 3)
    assert [received.event["data"]["id"] for received in receiver.received] == [first, first, second]


def test_an_endpoint_with_many_waiting_deliveries_can_be_deleted(world: World, receiver: Receiver) -> None:
    """It takes several transactions. All deliveries stay in the log, and none is due any more."""
    endpoint = world.post("/api/v1/webhook-endpoints", {"url": receiver.url, "event_types": ["payout.created"]}).json()
    assert world.patch(f"/api/v1/webhook-endpoints/{endpoint['id']}", {"status": "DISABLED"}).status_code == 200
    world.create_payout("0004")
    world.stack.execute(
        "INSERT INTO webhook_deliveries (merchant_id, id, event_id, endpoint_id, status, attempts, scheduled, next_attempt_at, "
        "created_at, updated_at) SELECT d.merchant_id, gen_random_uuid(), d.event_id, d.endpoint_id, "
        "CASE WHEN n % 2 = 0 THEN 'PENDING' ELSE 'PAUSED' END, 0, 0, CASE WHEN n % 2 = 0 THEN now() END, now(), now() "
        "FROM webhook_deliveries d, generate_series(1, 12001) n WHERE d.merchant_id = $1",
        world.merchant_id,
    )
    assert world.client.delete(f"/api/v1/webhook-endpoints/{endpoint['id']}").status_code == 204
    assert world.client.delete(f"/api/v1/webhook-endpoints/{endpoint['id']}").status_code == 404
    counted = world.stack.execute(
        "SELECT status, count(*), count(next_attempt_at) AS due FROM webhook_deliveries WHERE merchant_id = $1 GROUP BY status",
        world.merchant_id,
    )
    assert counted == [{"status": "FAILED", "count": 12002, "due": 0}]
    assert len(world.get("/api/v1/webhook-deliveries", status="FAILED", limit=100).json()["data"]) == 100
