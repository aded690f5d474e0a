"""The Python client against a real sandbox."""

from collections.abc import Iterator
from datetime import UTC
from decimal import Decimal

import pytest

from psp_sandbox.client import AsyncClient, Client
from psp_sandbox.client.models import Payout, PayoutStep
from psp_sandbox.client.problems import DuplicateReference, NotFound, ValidationError
from tests.harness.world import World


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    with Client(world.stack.api_url, api_key=world.api_key, admin_key=world.stack.admin_key) as found:
        yield found


def pay(client: Client, reference: str = "INV-1", suffix: str = "0001") -> Payout:
    return client.payouts.create(
        merchant_reference=reference, amount="100.00", dest_type="BANK", bank_code="HBL", account_number=f"1234567890{suffix}"
    )


def test_a_payout_is_created_and_waited_for(client: Client) -> None:
    payout = pay(client)
    assert payout.amount == Decimal("100.00")
    assert payout.created_at.tzinfo is UTC
    ended = client.payouts.wait_for(payout.id, "SUCCESS")
    assert ended.status == "SUCCESS"
    assert [entry.to for entry in client.payouts.timeline(payout.id)][-1] == "SUCCESS"
    assert client.balance.get().available_balance == Decimal("999900.00")


def test_a_problem_is_the_exception_of_its_code(client: Client) -> None:
    pay(client)
    with pytest.raises(DuplicateReference, match="409 DUPLICATE_REFERENCE: "):
        pay(client)
    with pytest.raises(ValidationError) as caught:
        client.payouts.create(merchant_reference="x", amount="-1", dest_type="BANK", account_number="12")
    assert "amount" in [error.field for error in caught.value.errors]
    with pytest.raises(NotFound):
        client.payouts.get("01920f3a-7c00-7000-8000-000000000001")


def test_the_clock(client: Client) -> None:
    client.clock.freeze()
    payout = pay(client, suffix="0012")
    run = client.clock.advance(seconds=60)
    assert run.complete
    assert [(step.payout_id, step.to) for step in run.ran if isinstance(step, PayoutStep)] == [(payout.id, "RETURNED")]
    assert client.drain().drained
    assert client.audit().ok


def test_pages(client: Client) -> None:
    references = [f"ref-{number}" for number in range(7)]
    for reference in references:
        pay(client, reference)
    assert [payout.merchant_reference for payout in client.payouts.list(limit=3)] == references[::-1]


def test_stream(client: Client) -> None:
    with client.stream(types="payout.*", timeout=20) as events:
        payout = pay(client)
        for event in events:
            if event.type == "payout.succeeded":
                break
        assert event.data["payout_id"] == payout.id


def test_settings(client: Client) -> None:
    assert client.settings.change(review_threshold=None).review_threshold is None
    assert client.settings.change(rate_limit=100).review_threshold is None


async def test_async(world: World) -> None:
    async with AsyncClient(world.stack.api_url, api_key=world.api_key) as client:
        payout = await client.payouts.create(
            merchant_reference="INV-1",
            amount=Decimal("100"),
            dest_type="BANK",
            bank_code="HBL",
            account_number="12345678900001",
        )
        assert (await client.payouts.wait_for(payout.id, "SUCCESS")).status == "SUCCESS"
        assert [found.id async for found in client.payouts.list()] == [payout.id]
