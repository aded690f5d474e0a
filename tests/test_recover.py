"""Recover an endpoint's events: failed and kept ones, or all, in bounded transactions."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.domain.unit import IdempotencyKey
from sandbox.webhooks import recovery
from sandbox.webhooks.endpoints.requests import RecoverBody
from sandbox.webhooks.recovery import RecoveryService
from tests.harness.receiver import Received, Receiver
from tests.harness.waiting import until
from tests.harness.work import pooled, request_of, units_of_work
from tests.harness.world import Stack, World
from tests.test_webhooks import deliveries, endpoint

AT = "2031-01-01T00:00:00.000Z"
EARLIER, LATER = "2030-12-31T23:00:00Z", "2031-01-01T01:00:00Z"


@pytest.fixture
def frozen(stack: Stack) -> Iterator[World]:
    """Yield a merchant whose clock stands still, so that no retry falls due."""
    with World.create(stack, opening_balance="1000000.00", frozen_at=AT) as world:
        yield world


def recover(world: World, endpoint_id: str, key: str | None = None, **body: Any) -> dict[str, Any]:
    """Recover an endpoint's failed events, unless the body says otherwise. Return the response."""
    response = world.post(
        f"/api/v1/webhook-endpoints/{endpoint_id}/recover", {"since": EARLIER, "which": "failed", **body}, key
    )
    found: dict[str, Any] = response.json()
    return found


def created(count: int) -> dict[str, Any]:
    """Return the response for this number of events `payout.created`."""
    return {"count": count, "by_type": {"payout.created": count} if count else {}}


def payouts_received(receiver: Receiver) -> list[str]:
    """Return the payouts of the webhooks received, in order of arrival, and forget the webhooks."""
    found = [event["data"]["id"] for event in receiver.events()]
    receiver.received.clear()
    return found


def all_sent(world: World) -> bool:
    """Return whether no delivery is due or in progress."""
    return not deliveries(world, status="PENDING")


def test_failed_and_kept_events_are_sent_again_once_and_in_order(frozen: World, receiver: Receiver) -> None:
    receiver.respond = lambda _: (500, {}, b"")
    path = f"/api/v1/webhook-endpoints/{(id_ := endpoint(frozen, receiver.url)['id'])}"
    failed = frozen.create_payout("0004")["id"]
    until(lambda: deliveries(frozen)[0]["attempt_count"] == 1)
    frozen.patch(path, {"status": "DISABLED"})
    kept = frozen.create_payout("0004")["id"]
    assert [delivery["status"] for delivery in deliveries(frozen)] == ["PAUSED", "PENDING"]
    assert recover(frozen, id_)["code"] == "INVALID_STATE"
    assert recover(frozen, id_, dry_run=True) == created(2)
    frozen.patch(path, {"status": "ENABLED"})
    receiver.respond = lambda _: (200, {}, b"")
    frozen.post(f"{path}/test", {"event_type": "payout.failed"})
    succeeded = frozen.create_payout("0004")["id"]
    until(lambda: len(deliveries(frozen, status="SUCCEEDED")) == 2)
    payouts_received(receiver)
    before = deliveries(frozen)
    assert recover(frozen, id_, dry_run=True) == created(2)
    assert recover(frozen, id_, dry_run=True, until=EARLIER[:-1] + ".001Z") == created(0)
    assert recover(frozen, id_, dry_run=True, event_types=["payout.failed", "bulk_credit.*"]) == created(0)
    assert recover(frozen, id_, dry_run=True, since=LATER) == created(0)
    assert deliveries(frozen) == before
    assert recover(frozen, id_, key="once") == created(2)
    until(lambda: all_sent(frozen))
    assert payouts_received(receiver) == [failed, kept]
    assert recover(frozen, id_, key="once") == created(2)
    assert recover(frozen, id_) == created(0)
    for delivery in deliveries(frozen)[-2:]:
        attempts = frozen.get(f"/api/v1/webhook-deliveries/{delivery['id']}").json()["attempts"]
        assert [attempt["manual"] for attempt in attempts][-1] is True
    assert recover(frozen, id_, which="all") == created(3)
    until(lambda: all_sent(frozen))
    assert payouts_received(receiver) == [failed, kept, succeeded]
    frozen.assert_clean()


def test_retries_that_are_due_and_wait_for_their_turn_are_counted_and_sent(frozen: World, receiver: Receiver) -> None:
    gate = threading.Event()
    receiver.respond = lambda _: (500, {}, b"")
    id_ = endpoint(frozen, receiver.url)["id"]
    for _ in range(3):
        frozen.create_payout("0004")
    until(lambda: [delivery["attempt_count"] for delivery in deliveries(frozen)] == [1, 1, 1])
    frozen.patch(f"/api/v1/webhook-endpoints/{id_}", {"max_in_flight": 1})
    started = threading.Event()

    def respond(_: Received) -> tuple[int, dict[str, str], bytes]:
        started.set()
        gate.wait(30)
        return 200, {}, b""

    receiver.respond = respond
    advancing = threading.Thread(target=frozen.post, args=("/sandbox/v1/clock/advance", {"seconds": 600}))
    advancing.start()
    started.wait(30)
    frozen.stack.execute(
        "UPDATE webhook_deliveries SET next_attempt_at = $2::text::timestamptz WHERE merchant_id = $1 AND leased_until IS NULL",
        frozen.merchant_id,
        AT,
    )
    try:
        assert recover(frozen, id_, dry_run=True) == created(2)
        assert recover(frozen, id_) == created(2)
    finally:
        gate.set()
        advancing.join()
    until(lambda: len(deliveries(frozen, status="SUCCEEDED")) == 3)


def test_replaying_all_also_sends_events_that_an_endpoint_would_have_received(frozen: World, receiver: Receiver) -> None:
    small, large = (frozen.create_payout("0004", amount=amount)["id"] for amount in ("1.00", "2000.00"))
    with Receiver() as elsewhere:
        other = endpoint(frozen, elsewhere.url, event_types=["payout.failed"])["id"]
        frozen.post(f"/api/v1/webhook-endpoints/{other}/test", {"event_type": "payout.created"})
        filters = [{"field": "data.amount", "op": "gte", "value": 1000}]
        id_ = endpoint(frozen, receiver.url, filters=filters)["id"]
        assert recover(frozen, id_) == created(0)
        assert recover(frozen, id_, which="all", dry_run=True) == created(1)
        assert recover(frozen, id_, which="all") == created(1)
        until(lambda: all_sent(frozen))
        assert payouts_received(receiver) == [large]
        (delivery,) = deliveries(frozen, endpoint_id=id_)
        (attempt,) = frozen.get(f"/api/v1/webhook-deliveries/{delivery['id']}").json()["attempts"]
        assert attempt["manual"] is True
        frozen.patch(f"/api/v1/webhook-endpoints/{id_}", {"filters": []})
        assert recover(frozen, id_, which="all") == created(2)
        until(lambda: all_sent(frozen))
        assert sorted(payouts_received(receiver)) == sorted([small, large])
        assert len(elsewhere.received) == 1


def test_an_invalid_recovery_is_refused(world: World, receiver: Receiver) -> None:
    id_ = endpoint(world, receiver.url)["id"]
    for body, fields in (
        ({"since": "yesterday"}, ["since"]),
        ({"since": LATER, "until": LATER}, ["until"]),
        ({"until": "2031-13-01T00:00:00Z", "event_types": ["x"]}, ["until", "event_types[0]"]),
        ({"which": "some", "dry_run": 1, "since": "x"}, ["which", "dry_run", "since"]),
    ):
        assert [error["field"] for error in recover(world, id_, **body)["errors"]] == fields
    assert recover(world, "0" * 8 + "-0000-7000-8000-" + "0" * 12)["code"] == "NOT_FOUND"


@pytest.mark.parametrize("which", ["failed", "all"])
async def test_a_recovery_takes_several_transactions_and_continues_after_a_crash(
    stack: Stack, frozen: World, receiver: Receiver, which: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = endpoint(frozen, receiver.url)["id"]
    frozen.patch(f"/api/v1/webhook-endpoints/{id_}", {"status": "DISABLED"})
    payouts = [frozen.create_payout("0004")["id"] for _ in range(7)]
    frozen.patch(f"/api/v1/webhook-endpoints/{id_}", {"status": "ENABLED"})
    monkeypatch.setattr(recovery, "ROWS_PER_TRANSACTION", 3)
    name = f"_recover_{which}"
    part = getattr(recovery, name)
    parts = 0

    async def crash_in_second_part(*arguments: Any) -> Any:
        nonlocal parts
        parts += 1
        if parts == 2:
            raise RuntimeError("the process dies")
        return await part(*arguments)

    monkeypatch.setattr(recovery, name, crash_in_second_part)
    context = request_of(frozen.merchant_id, IdempotencyKey("crash", b"same request"))
    body = RecoverBody(since=EARLIER, which=which)
    async with pooled(stack.database_url, 2):
        service = RecoveryService(units_of_work())
        with pytest.raises(RuntimeError, match="the process dies"):
            await service.recover_webhook_endpoint(context, id_, body)
        assert frozen.post("/sandbox/v1/drain").status_code == 200
        assert len(receiver.received) == 3
        result = await service.recover_webhook_endpoint(context, id_, body)
    assert (result.status, result.body) == (200, b'{"count":7,"by_type":{"payout.created":7}}')
    assert frozen.post("/sandbox/v1/drain").status_code == 200
    assert payouts_received(receiver) == payouts
