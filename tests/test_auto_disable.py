"""Endpoints that only fail are disabled, with a reason and a history, and can be enabled again."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.webhooks.delivery.endpoint_health import AttemptOutcome, StatusChange, add_to_history, health_changes
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import Stack, World
from tests.test_recover import recover
from tests.test_webhooks import deliveries, endpoint

START = datetime(2031, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def frozen(stack: Stack) -> Iterator[World]:
    """Yield a merchant whose clock stands still until the test advances it."""
    with World.create(stack, opening_balance="1000000.00", frozen_at=START.isoformat()) as world:
        yield world


def advance(world: World, days: float) -> None:
    """Advance the clock, with all retries that fall due on the way."""
    response = world.post("/sandbox/v1/clock/advance", {"seconds": days * 86400})
    assert response.status_code == 200, response.text


def send_one(world: World) -> None:
    """Create a payout, and wait until its first webhook has been attempted."""
    world.create_payout("0004")
    until(lambda: deliveries(world)[0]["attempt_count"])


def test_an_endpoint_is_disabled_after_five_days_of_failures_and_enabled_again_by_patch(
    frozen: World, receiver: Receiver
) -> None:
    receiver.respond = lambda _: (500, {}, b"")
    path = f"/api/v1/webhook-endpoints/{(id_ := endpoint(frozen, receiver.url)['id'])}"
    send_one(frozen)
    advance(frozen, 4.9)
    send_one(frozen)
    assert (frozen.get(path).json()["status"], frozen.get(path).json()["history"]) == ("ENABLED", [])
    advance(frozen, 1.1)
    disabled = frozen.get(path).json()
    reason = "Every attempt since 2031-01-01T00:00:00.000Z failed, for at least 5 days."
    assert (disabled["status"], disabled["disabled_reason"]) == ("DISABLED", reason)
    (change,) = disabled["history"]
    assert (change["status"], change["reason"], change["at"] < "2031-01-07") == ("DISABLED", reason, True)
    assert change["at"] >= "2031-01-06"
    frozen.create_payout("0004")
    assert deliveries(frozen)[0]["status"] == "PAUSED"
    assert frozen.patch(path, {"description": "x"}).json()["disabled_reason"] == reason
    enabled = frozen.patch(path, {"status": "ENABLED"}).json()
    assert (enabled["status"], enabled["disabled_reason"]) == ("ENABLED", None)
    assert enabled["history"] == [change, {"at": "2031-01-07T00:00:00.000Z", "status": "ENABLED", "reason": None}]
    send_one(frozen)
    assert frozen.get(path).json()["status"] == "ENABLED", "five more days have to pass"
    assert recover(frozen, id_, since=START.isoformat(), dry_run=True)["count"] == 4


def test_one_success_means_that_the_endpoint_is_not_failing(frozen: World, receiver: Receiver) -> None:
    path = f"/api/v1/webhook-endpoints/{endpoint(frozen, receiver.url)['id']}"
    for status, is_failing in ((500, True), (200, False), (500, True), (500, True)):
        receiver.respond = lambda _, status=status: (status, {}, b"")
        send_one(frozen)
        found = frozen.stack.execute("SELECT failing_since FROM webhook_endpoints WHERE merchant_id = $1", frozen.merchant_id)
        assert (found[0]["failing_since"] is not None) is is_failing
        frozen.stack.execute(
            "UPDATE webhook_deliveries SET status = 'FAILED', next_attempt_at = NULL WHERE merchant_id = $1", frozen.merchant_id
        )
        advance(frozen, 3)
    assert frozen.get(path).json()["status"] == "ENABLED"


def test_a_410_is_in_the_history_which_has_at_most_twenty_changes(world: World, receiver: Receiver) -> None:
    receiver.respond = lambda _: (410, {}, b"")
    path = f"/api/v1/webhook-endpoints/{endpoint(world, receiver.url)['id']}"
    world.create_payout("0004")
    until(lambda: world.get(path).json()["status"] == "DISABLED")
    shown = world.get(path).json()
    assert (
        [change["reason"] for change in shown["history"]]
        == [shown["disabled_reason"]]
        == ["The endpoint responded with 410 Gone."]
    )
    world.patch(path, {"status": "DISABLED"})
    assert world.get(path).json()["history"] == shown["history"], "only changes are listed"
    changes = [StatusChange(str(number), "ENABLED", None) for number in range(25)]
    history: list[StatusChange] = []
    for one in changes:
        history = add_to_history(history, one)
    assert history == changes[5:]


def test_successful_attempts_do_not_write_the_endpoint(world: World, receiver: Receiver) -> None:
    """Otherwise all workers would wait for each other at this row."""
    endpoint(world, receiver.url)
    version = "SELECT xmin::text AS xmin FROM webhook_endpoints WHERE merchant_id = $1"
    before = world.stack.execute(version, world.merchant_id)
    for _ in range(3):
        world.create_payout("0004")
    until(lambda: len(deliveries(world, status="SUCCEEDED")) == 3)
    assert world.stack.execute(version, world.merchant_id) == before


def test_a_batch_of_attempts_is_summed_up_per_endpoint() -> None:
    def attempt(endpoint_id: str, day: float, outcome: Any, since: datetime | None = None) -> AttemptOutcome:
        return AttemptOutcome(endpoint_id, since, START + day * DAY, outcome)

    changes = health_changes([
        attempt("begins", 2, "failed"), attempt("begins", 1, "succeeded"), attempt("begins", 3, "failed"),
        attempt("goes on", 4.9, "failed", START),
        attempt("ends", 5, "failed", START),
        attempt("recovers", 5, "succeeded", START), attempt("recovers", 4, "failed", START),
        attempt("failed before it succeeded", 1, "failed"), attempt("failed before it succeeded", 2, "succeeded"),
        attempt("is gone", 1, "gone", START),
    ])  # fmt: skip
    assert [(one.id, one.succeeded, one.failed_at, one.last_failed_at, one.gone) for one in changes] == [
        ("begins", True, START + 2 * DAY, START + 3 * DAY, False),
        ("ends", False, START + 5 * DAY, START + 5 * DAY, False),
        ("is gone", False, START + DAY, START + DAY, True),
        ("recovers", True, None, None, False),
    ]
