"""The fixture `psp`: a merchant of the test's own, with its money, its clock, its webhooks and its faults."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from psp_sandbox.client.problems import DuplicateReference, InsufficientBalance
from psp_sandbox.testing import Sandbox, UsageError, World
from psp_sandbox.testing.checks import failed_checks
from psp_sandbox.testing.options import read_marks
from psp_sandbox.testing.results import seconds_of
from tests.harness.waiting import until

RETURNED = ["payout.created", "payout.processing", "payout.succeeded", "payout.returned"]


@pytest.mark.psp(balance="10000.00", seed=7)
def test_a_payout_runs_through_its_scenario_as_the_clock_advances(psp: World) -> None:
    payout = psp.pays("returned", amount="250.00")
    assert (payout.amount, psp.payout(payout).status) == (Decimal("250.00"), "SUCCESS")
    assert psp.balance.available == Decimal("9750.00")
    assert psp.advance("59s").ran == []
    ran = psp.advance(1).ran
    assert [(step.from_, step.to) for step in ran if step.kind == "payout_step"] == [("SUCCESS", "RETURNED")]
    assert [step.outcome for step in ran if step.kind == "delivery_attempt"] == ["succeeded"]
    assert psp.payout(payout.id).status == "RETURNED"
    assert psp.balance.available == Decimal("10000.00")
    assert psp.webhooks(payout).types == RETURNED


def test_webhooks_are_those_of_this_test_only_each_once_and_in_order_of_version(psp: World) -> None:
    with psp.fault("duplicate", on="payout.*"), psp.fault("reorder", on="webhooks", allow_unhit=True):
        first, second = psp.pays("success"), psp.pays("failed")
        psp.advance("2s")
    assert psp.webhooks(first).types == ["payout.created", "payout.processing", "payout.succeeded"]
    assert psp.webhooks(second).types == ["payout.created", "payout.processing", "payout.failed"]
    assert [webhook.version for webhook in psp.webhooks(first)] == [1, 2, 3]
    assert len(psp.webhooks) == 6
    assert len(psp.webhooks.received) == 12
    assert [len(webhook.received) for webhook in psp.webhooks] == [2] * 6
    psp.webhooks.expect("payout.succeeded", times=1)
    assert psp.webhooks.expect("payout.failed", payout=second).payout_id == second.id


def test_an_expectation_of_a_frozen_world_without_an_application_fails_at_once(
    psp: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    psp.pays("pending")

    def sleep(seconds: float) -> None:
        raise AssertionError("it waits, although nothing can arrive")

    monkeypatch.setattr("psp_sandbox.testing.webhooks.time.sleep", sleep)
    with pytest.raises(AssertionError, match=r"(?s)arrived 0 times\n  The clock is frozen.*psp\.advance.*payout\.created"):
        psp.webhooks.expect("payout.succeeded")


def test_an_expectation_that_does_not_come_true_says_what_arrived(psp: World) -> None:
    payout = psp.pays("success")
    with pytest.raises(AssertionError, match=r"(?s)expected payout.failed once .*arrived: payout.succeeded \(version 3\)"):
        psp.webhooks.expect("payout.failed", times=1, payout=payout, timeout=0)


@pytest.mark.psp(frozen="2030-01-01T00:00:00Z")
def test_the_clock_can_be_frozen_at_a_time_and_moved_to_one(psp: World) -> None:
    assert psp.now == datetime(2030, 1, 1, tzinfo=UTC)
    psp.advance(timedelta(minutes=1))
    psp.advance(to=datetime(2030, 1, 2, tzinfo=UTC))
    assert psp.now == datetime(2030, 1, 2, tzinfo=UTC)
    psp.resume()
    assert psp.now >= datetime(2030, 1, 2, tzinfo=UTC)


@pytest.mark.psp(frozen=False)
def test_with_a_running_clock_an_advance_returns_when_everything_is_done(psp: World) -> None:
    payout = psp.pays("returned")
    psp.advance("61s")
    assert psp.webhooks(payout).types == RETURNED


def test_the_next_payout_is_the_one_that_the_application_created(psp: World) -> None:
    psp.pays("success")
    body: dict[str, Any] = {"amount": "1", "dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"}
    for reference in ("order-1", "order-2"):
        psp.client.payouts.create(merchant_reference=reference, **body)
    assert psp.next_payout().merchant_reference == "order-1"
    assert psp.next_payout(reference="order-2").status == "SUCCESS"
    with pytest.raises(AssertionError, match=r"no payout with reference 'order-3' .* order-2 \(SUCCESS\)"):
        psp.next_payout(reference="order-3", timeout=0)


async def test_an_async_test_has_a_client_of_its_own(psp: World) -> None:
    payout = psp.pays("success")
    assert (await psp.async_client.payouts.get(payout.id)).status == "SUCCESS"
    assert [one.id async for one in psp.async_client.payouts.list()] == [payout.id]


@pytest.mark.psp(balance="100000.00")
def test_a_payout_that_is_refused_raises_its_problem(psp: World) -> None:
    with pytest.raises(InsufficientBalance):
        psp.pays("success", amount="100000.01", reference="a")
    assert psp.pays("success", amount="1.00", reference="b").status == "PENDING"
    with pytest.raises(DuplicateReference):
        psp.pays("success", amount="1.00", reference="b")


def test_the_plugin_sends_five_requests_for_a_test_that_sends_none(psp_sandbox: Sandbox) -> None:
    sent: list[str] = []
    hooks = psp_sandbox.client._caller.pool.http().event_hooks
    hooks["request"].append(lambda request: sent.append(f"{request.method} {request.url.path}"))
    psp_sandbox.client._caller.pool.http().event_hooks = hooks
    try:
        world = World(psp_sandbox, read_marks([], "test"))
        assert failed_checks(world) == []
        world.close()
        deletion = f"DELETE /sandbox/v1/merchants/{world.merchant_id}"
        until(lambda: deletion in sent)  # sent in the background, as are deletions of earlier tests' worlds
    finally:
        psp_sandbox.client._caller.pool.http().event_hooks = {}
    assert [call for call in sent if call == deletion or not call.startswith("DELETE")] == [
        "POST /sandbox/v1/merchants", "GET /sandbox/v1/audit", "GET /api/v1/webhook-deliveries", "GET /sandbox/v1/faults",
        deletion,
    ]  # fmt: skip


def test_other_events_than_those_of_payouts_arrive_if_they_are_asked_for(psp: World) -> None:
    psp.subscribe("*")
    user = psp.client.users.create(name="Amna")
    psp.client.bulk_credits.upload(f"uuid,amount\n{user.id},5.00\n")
    event = psp.webhooks.expect("bulk_credit.completed")
    assert (event.version, event.payout_id) == (0, None)


def test_an_unknown_scenario_is_answered_with_those_that_exist(psp: World) -> None:
    with pytest.raises(UsageError, match=r"no scenario 'refunded'.*returned, slow_failure"):
        psp.pays("refunded")


def test_a_float_is_not_an_amount(psp: World) -> None:
    with pytest.raises(UsageError, match=r'a float is not exact: write "10.50"'):
        psp.pays("success", amount=10.5)


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [("60s", 60), ("1h 30m", 5400), ("2d", 172800), ("1.5s", 1.5), ("250ms", 0.25), (3, 3), (timedelta(hours=1), 3600)],
)
def test_durations(duration: object, seconds: float) -> None:
    assert seconds_of(duration) == seconds


@pytest.mark.parametrize("duration", ["", "60", "1 year", "-1s", -1, True, None, "s", float("inf")])
def test_what_is_not_a_duration_is_refused(duration: object) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        seconds_of(duration)
