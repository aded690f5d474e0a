"""The Python client against a real sandbox: every noun, paging, problems, waiting, and the stream."""

import pickle
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from psp_sandbox import AsyncClient, Client, ProblemError
from psp_sandbox.client import NotReached, PspError, WaitTimeout
from psp_sandbox.client.models import CreatedPayout, DeliveryAttempt, Payout, PayoutStep, RefusedItem
from psp_sandbox.client.problems import (
    DuplicateReference,
    InsufficientBalance,
    InternalError,
    NotFound,
    ValidationError,
)
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import Stack, World

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    """Yield a client with a merchant's admin key and the operator's key."""
    with Client(world.stack.api_url, api_key=world.api_key, admin_key=world.stack.admin_key) as found:
        yield found


@pytest.fixture
async def async_client(world: World) -> AsyncIterator[AsyncClient]:
    """Yield a client for asyncio with a merchant's admin key and the operator's key."""
    async with AsyncClient(world.stack.api_url, api_key=world.api_key, admin_key=world.stack.admin_key) as found:
        yield found


def pay(client: Client, reference: str = "INV-1", suffix: str = "0001", amount: str = "100.00") -> Payout:
    return client.payouts.create(
        merchant_reference=reference, amount=amount, dest_type="BANK", bank_code="HBL", account_number=f"1234567890{suffix}"
    )


def test_a_payout_has_decimal_money_and_times_in_utc(client: Client) -> None:
    payout = pay(client, amount="100.10")
    assert payout.amount == Decimal("100.10")
    assert payout.created_at.tzinfo is UTC
    ended = client.payouts.wait_for(payout.id, "SUCCESS")
    assert (ended.status, ended.id) == ("SUCCESS", payout.id)
    assert client.payouts.get(payout.id) == ended
    assert [entry.to for entry in client.payouts.timeline(payout.id)] == ["PENDING", "PROCESSING", "SUCCESS"]
    assert client.balance.get().available_balance == Decimal("999899.90")
    with pytest.raises(AttributeError):
        payout.status = "FAILED"  # type: ignore[misc] # results are frozen


def test_payouts_are_approved_rejected_cancelled_reinitiated_and_simulated(client: Client) -> None:
    made = [
        client.payouts.create(
            merchant_reference=f"INV-{number}",
            amount=10,
            dest_type="WALLET",
            wallet_code="JAZZCASH",
            account_number="03001234560004",
            metadata={"order": str(number)},
            requires_approval=True,
        )
        for number in range(3)
    ]
    assert client.payouts.approve(made[0].id).status == "PENDING"
    assert client.payouts.reject(made[1].id).status == "REJECTED"
    assert client.payouts.cancel(made[2].id).status == "CANCELLED"
    assert client.payouts.simulate(made[0].id, status="FAILED", failure_code="ACCOUNT_CLOSED").failure_code == "ACCOUNT_CLOSED"
    assert client.payouts.actions(made[0].id).status == "FAILED"
    assert client.payouts.reinitiate(made[0].id).status == "PENDING"
    assert [payout.id for payout in client.payouts.list(metadata={"order": "1"})] == [made[1].id]
    assert {payout.id for payout in client.payouts.list(status=["REJECTED", "CANCELLED"])} == {made[1].id, made[2].id}


def test_a_batch_tells_the_created_payouts_from_the_refused_ones(client: Client) -> None:
    good = {"merchant_reference": "INV-1", "amount": Decimal("10"), "dest_type": "BANK", "bank_code": "HBL"}
    created, refused = client.payouts.create_batch(
        [
            {**good, "account_number": "12345678900001"},  # type: ignore[typeddict-item] # a dict of its parts
            {**good, "account_number": "1"},  # type: ignore[typeddict-item]
        ]
    )
    assert isinstance(created, CreatedPayout)
    assert created.payout.amount == 10
    assert isinstance(refused, RefusedItem)
    assert refused.problem.code == "VALIDATION_ERROR"


def test_the_scenario_can_be_named(client: Client) -> None:
    payout = client.payouts.create(
        merchant_reference="INV-1",
        amount="10",
        dest_type="BANK",
        bank_code="HBL",
        account_number="12345678901111",
        scenario="failed",
    )
    assert client.payouts.wait_for(payout.id, "FAILED").failure_code == "BANK_REJECTED"


def test_a_problem_is_the_exception_of_its_code(client: Client) -> None:
    pay(client)
    with pytest.raises(DuplicateReference, match="409 DUPLICATE_REFERENCE: ") as duplicate:
        pay(client)
    assert (duplicate.value.status, duplicate.value.code) == (409, "DUPLICATE_REFERENCE")
    assert duplicate.value.request_id in str(duplicate.value)
    entry = until(lambda: next(client.requests.list(request_id=duplicate.value.request_id), None))
    assert entry is not None
    assert entry.status == 409
    with pytest.raises(ValidationError) as invalid:
        client.payouts.create(merchant_reference="x", amount="-1", dest_type="BANK", bank_code="HBL", account_number="12")
    assert {error.field for error in invalid.value.errors} == {"amount", "account_number"}
    assert str(invalid.value).count("amount: ") == str(invalid.value).count("account_number: ") == 1
    with pytest.raises(InsufficientBalance):
        pay(client, "INV-2", amount="9999999.00")
    with pytest.raises(NotFound):
        client.payouts.get("01920f3a-7c00-7000-8000-000000000001")
    with pytest.raises(ValueError, match="is not an id"):
        client.payouts.get("")
    copy = pickle.loads(pickle.dumps(duplicate.value))  # noqa: S301 - our own; a test runner sends exceptions between processes
    assert (type(copy), str(copy)) == (DuplicateReference, str(duplicate.value))


def test_waiting_ends_with_the_timeline_when_the_payout_cannot_get_there(client: Client) -> None:
    failed = pay(client, suffix="0003")
    with pytest.raises(NotReached, match=r"is FAILED \(BANK_REJECTED\), not SUCCESS.*PENDING -> PROCESSING -> FAILED") as ended:
        client.payouts.wait_for(failed.id, "SUCCESS", timeout=30)
    assert not isinstance(ended.value, WaitTimeout)
    client.clock.freeze()
    pending = pay(client, "INV-2", suffix="0013")
    client.drain()
    with pytest.raises(WaitTimeout, match=r"is PROCESSING, not SUCCESS or FAILED.*clock is frozen") as late:
        client.payouts.wait_for(pending.id, "SUCCESS", "FAILED", timeout=0.1)
    assert [entry.to for entry in late.value.timeline] == ["PENDING", "PROCESSING"]


def test_waiting_for_a_status_that_the_payout_has_already_left(client: Client) -> None:
    payout = pay(client)
    client.payouts.wait_for(payout.id, "SUCCESS")
    assert client.payouts.wait_for(payout.id, "PROCESSING", timeout=0.1).status == "SUCCESS"


def test_the_clock_is_frozen_advanced_and_resumed(client: Client) -> None:
    assert not client.clock.get().frozen
    frozen = client.clock.freeze(at=datetime.now(UTC) + timedelta(days=1))
    payout = pay(client, suffix="0012")
    assert client.drain().drained
    assert [work.kind for work in client.clock.due().data] == ["payout_step"]
    run = client.clock.advance(seconds=60)
    assert run.complete
    assert run.from_ == frozen.now
    assert run.now - run.from_ == timedelta(seconds=60)
    assert [(step.payout_id, step.to) for step in run.ran if isinstance(step, PayoutStep)] == [(payout.id, "RETURNED")]
    assert client.clock.advance(to=run.now + timedelta(hours=1)).now == run.now + timedelta(hours=1)
    assert not client.clock.resume().frozen
    with pytest.raises(ValueError, match="has no time zone"):
        client.clock.freeze(at=datetime(2030, 1, 1))  # noqa: DTZ001 - that is the mistake


def test_lists_go_through_all_pages_and_load_no_more_than_needed(client: Client) -> None:
    references = [f"ref-{number}" for number in range(7)]
    for reference in references:
        pay(client, reference)
    assert [payout.merchant_reference for payout in client.payouts.list(limit=3)] == references[::-1]
    payouts = client.payouts.list(limit=3)
    assert next(payouts).merchant_reference == "ref-6"
    client.faults.create(kind="error", target="api", status=500, match={"method": "GET", "path": "/api/v1/payouts"})
    assert [next(payouts).merchant_reference for _ in range(2)] == ["ref-5", "ref-4"]
    with pytest.raises(InternalError):
        next(payouts)
    assert {entry.account for entry in client.balance.history(limit=5)} == {"AVAILABLE", "LOCKED"}


def test_webhook_endpoints_deliveries_and_events(client: Client, receiver: Receiver) -> None:
    endpoint = client.webhook_endpoints.create(
        receiver.url, event_types=["payout.*"], filters=[{"op": "gte", "field": "data.amount", "value": 50}], rate_limit=600
    )
    client.clock.freeze()
    payout = pay(client)
    ran = client.drain().ran
    assert {step.outcome for step in ran if isinstance(step, DeliveryAttempt)} <= {"succeeded"}
    until(lambda: len(receiver.received) == 3)
    assert receiver.received[0].verify(endpoint.secret or "")["type"] == "payout.created"
    events = list(client.events.list(payout_id=payout.id))
    assert [event.type for event in events] == ["payout.succeeded", "payout.processing", "payout.created"]
    assert client.events.get(events[0].id).deliveries[0].endpoint_id == endpoint.id
    delivery = next(client.deliveries.list(endpoint_id=endpoint.id))
    assert client.deliveries.get(delivery.id).attempts[0].status == 200
    assert client.deliveries.explain(delivery.id).status == "SUCCEEDED"
    assert client.deliveries.resend(delivery.id).id == delivery.id
    until(lambda: client.deliveries.get(delivery.id).status == "SUCCEEDED")  # it is PENDING until it was sent again
    changed = client.webhook_endpoints.change(endpoint.id, description="orders", rate_limit=None)
    assert (changed.description, changed.rate_limit) == ("orders", None)
    assert client.webhook_endpoints.change(endpoint.id, ordered=True).description == "orders"
    assert client.webhook_endpoints.rotate_secret(endpoint.id, grace_seconds=0).secret != endpoint.secret
    assert client.webhook_endpoints.preview(endpoint.id)[0].matches
    assert client.webhook_endpoints.explain_signature(endpoint.id, body="{}").steps
    assert client.webhook_endpoints.test(endpoint.id, "payout.failed").event_type == "payout.failed"
    assert client.webhook_endpoints.recover(endpoint.id, since=START, which="all", dry_run=True).count >= 3
    assert [found.id for found in client.webhook_endpoints.list()] == [client.webhook_endpoints.get(endpoint.id).id]
    client.webhook_endpoints.delete(endpoint.id)
    assert list(client.webhook_endpoints.list()) == []


def test_a_world_is_exported_and_imported(client: Client, stack: Stack) -> None:
    payout = pay(client)
    client.drain()
    bundle = client.world.export()
    other = client.with_key(client.merchants.create("copy").api_key)
    assert other.world.import_(bundle).imported
    assert other.payouts.get(payout.id).status == "SUCCESS"


def test_the_stream_misses_nothing_after_it_was_opened(client: Client) -> None:
    with client.stream(types="payout.*", timeout=30) as events:
        pay(client)
        assert [next(events).type for _ in range(3)] == ["payout.created", "payout.processing", "payout.succeeded"]
    assert list(client.stream(types="receiver_test.*", timeout=0.1)) == []
    with pytest.raises(ValidationError):
        client.stream(limit=0)


def test_a_missing_key_and_a_wrong_url_are_explained(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PSP_URL", "PSP_API_KEY", "PSP_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PspError, match="give api_key or PSP_API_KEY"):
        Client("https://psp.example").balance.get()
    with pytest.raises(ValueError, match="is not the URL of a sandbox"):
        Client("127.0.0.1:8000")
    monkeypatch.setenv("PSP_URL", stack.api_url)
    monkeypatch.setenv("PSP_API_KEY", stack.api_key)
    with Client() as client:
        assert client.balance.get().currency == "PKR"
        assert client.url == stack.api_url
    with pytest.raises(ProblemError, match="404"), Client(stack.ipn_url, api_key=stack.api_key) as client:
        client.balance.get()


async def test_the_async_client_does_the_same(async_client: AsyncClient) -> None:
    client = async_client
    for number in range(3):
        payout = await client.payouts.create(
            merchant_reference=f"INV-{number}", amount="100", dest_type="BANK", bank_code="HBL", account_number="12345678900001"
        )
    assert (await client.payouts.wait_for(payout.id, "SUCCESS")).amount == Decimal("100.00")
    assert [found.merchant_reference async for found in client.payouts.list(limit=2)] == ["INV-2", "INV-1", "INV-0"]
    with pytest.raises(NotFound):
        await client.payouts.get("01920f3a-7c00-7000-8000-000000000001")
    with pytest.raises(NotReached):
        await client.payouts.wait_for(payout.id, "FAILED", timeout=0.1)
    async with client.stream(types="payout.*", timeout=30) as events:
        await client.clock.freeze()
        await client.payouts.create(
            merchant_reference="INV-9", amount="1", dest_type="BANK", bank_code="HBL", account_number="12345678900012"
        )
        assert (await anext(events)).type == "payout.created"
    assert (await client.drain()).drained
    assert len((await client.clock.advance(seconds=60)).ran) == 1
    merchant = await client.merchants.create("other")
    assert [found async for found in client.with_key(merchant.api_key).payouts.list()] == []
    assert (await client.audit()).ok
    await client.merchants.delete(merchant.merchant_id)
