"""The Python client repeats what failed, with the same idempotency key, so that each write takes effect once."""

import asyncio
import json
import socket
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Literal

import pytest

from psp_sandbox import AsyncClient, Client, ProblemError
from psp_sandbox.client import Unreachable, _callers
from psp_sandbox.client.inputs import RequestMatch
from psp_sandbox.client.models import Payout
from psp_sandbox.client.problems import InternalError, RateLimited, Unavailable
from tests.harness.receiver import Receiver
from tests.harness.waiting import until
from tests.harness.world import World

Broken = Literal["connection_reset", "truncated_body"]
BROKEN: tuple[Broken, ...] = ("connection_reset", "truncated_body")


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    """Yield a client with a merchant's key."""
    with Client(world.stack.api_url, api_key=world.api_key) as found:
        yield found


def pay(client: Client, reference: str = "INV-1", idempotency_key: str | None = None) -> Payout:
    return client.payouts.create(
        merchant_reference=reference,
        amount="10.00",
        dest_type="BANK",
        bank_code="HBL",
        account_number="12345678900001",
        idempotency_key=idempotency_key,
    )


def keys_of(client: Client, count: int) -> list[str | None]:
    """Return the idempotency keys of the merchant's creates, of which there are `count`."""
    return (
        until(
            lambda: (
                (found := [entry.idempotency_key for entry in client.requests.list(method="POST", path="/api/v1/payouts")])
                and len(found) == count
                and found
            )
        )
        or []
    )


@pytest.mark.parametrize("kind", BROKEN)
def test_a_lost_answer_does_not_pay_twice(client: Client, kind: Broken) -> None:
    fault = client.faults.create(kind=kind, target="api", match={"path": "/api/v1/payouts"}, count=2)
    payout = pay(client)
    assert [found.id for found in client.payouts.list()] == [payout.id]
    assert client.faults.get(fault.id).remaining == 0
    (key,) = set(keys_of(client, 3))
    assert key is not None


def test_a_file_whose_answer_was_lost_is_credited_once(client: Client) -> None:
    user = client.users.create("Ayesha")
    client.faults.create(kind="connection_reset", target="api", match={"path": "/api/v1/wallet/bulk-credit"}, count=2)
    accepted = client.bulk_credits.upload(f"uuid,amount\n{user.id},1.00\n")
    client.drain()
    assert [credit.activity_id for credit in client.bulk_credits.list()] == [accepted.activity_id]
    assert client.users.balance(user.id).balance == 1


def test_an_answer_that_comes_too_late_does_not_pay_twice(world: World) -> None:
    with Client(world.stack.api_url, api_key=world.api_key, timeout=2) as client:
        match: RequestMatch = {"path": "/api/v1/payouts"}
        client.faults.create(kind="slow_after_commit", target="api", milliseconds=60_000, match=match, count=1)
        payout = pay(client)
        assert [found.id for found in client.payouts.list()] == [payout.id]


def test_errors_that_pass_are_retried_and_others_are_not(client: Client) -> None:
    client.faults.create(kind="error", target="api", status=503, match={"path": "/api/v1/payouts", "method": "POST"}, count=2)
    payout = pay(client)
    client.faults.create(kind="error", target="api", status=500, match={"path": "/api/v1/payouts", "method": "POST"}, count=1)
    with pytest.raises(InternalError):
        pay(client, "INV-2")
    assert [found.id for found in client.payouts.list()] == [payout.id]


def test_retries_are_bounded_in_number(world: World) -> None:
    with Client(world.stack.api_url, api_key=world.api_key, retries=2) as client:
        fault = client.faults.create(kind="error", target="api", status=503, match={"method": "GET"})
        with pytest.raises(Unavailable):
            client.balance.get()
        assert client.faults.get(fault.id).hits == 3


def test_retry_after_is_obeyed_unless_it_takes_too_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(_callers, "time", SimpleNamespace(sleep=pauses.append))
    with Client(world.stack.api_url, api_key=world.api_key, retry_seconds=60) as client:
        client.faults.create(kind="rate_limit", target="api", retry_after=30, match={"method": "GET"}, count=1)
        assert client.balance.get().currency == "PKR"
        assert pauses == [30]
        longer = client.faults.create(kind="rate_limit", target="api", retry_after=61, match={"method": "GET"})
        with pytest.raises(RateLimited):
            client.balance.get()
        assert (client.faults.get(longer.id).hits, len(pauses)) == (1, 1)


def test_no_answer_names_the_key_to_repeat_the_write_with(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", api_key=world.api_key, retries=1) as client:
        with pytest.raises(Unreachable, match="got no answer") as caught:
            pay(client, idempotency_key="mine")
        assert caught.value.idempotency_key == "mine"
        assert "idempotency_key='mine'" in str(caught.value)
        with pytest.raises(Unreachable) as read:
            client.balance.get()
        assert read.value.idempotency_key is None
    with Client(world.stack.api_url, api_key=world.api_key) as client:
        assert pay(client, idempotency_key="mine") == pay(client, idempotency_key="mine")


def test_every_retry_is_the_same_request(receiver: Receiver) -> None:
    in_flight = json.dumps({"code": "IDEMPOTENCY_KEY_IN_FLIGHT"}).encode()
    conflict = json.dumps({"code": "DUPLICATE_REFERENCE"}).encode()
    answers = [(409, {}, in_flight), (429, {"Retry-After": "0"}, b""), (502, {}, b""), (503, {}, b""), (504, {}, b"")]
    remaining = deque([*answers, (409, {}, conflict)])
    receiver.respond = lambda _: remaining.popleft()
    with Client(receiver.url, api_key="sk", retries=9) as client, pytest.raises(ProblemError, match="409"):
        pay(client)
    assert len(receiver.received) == len(answers) + 1
    assert len({(sent.headers["x-idempotency-key"], sent.body, sent.path) for sent in receiver.received}) == 1


async def test_the_async_client_retries_as_well(world: World) -> None:
    async with AsyncClient(world.stack.api_url, api_key=world.api_key, timeout=20) as client:
        for kind in BROKEN:
            await client.faults.create(kind=kind, target="api", match={"path": "/api/v1/payouts"}, count=1)
        await client.faults.create(kind="error", target="api", status=503, match={"path": "/api/v1/payouts"}, count=1)
        created = await asyncio.gather(
            *(
                client.payouts.create(
                    merchant_reference=f"INV-{number}",
                    amount=1,
                    dest_type="BANK",
                    bank_code="HBL",
                    account_number="12345678900001",
                )
                for number in range(5)
            )
        )
        assert {found.id async for found in client.payouts.list()} == {payout.id for payout in created}
        await client.faults.create(kind="error", target="api", status=500, match={"path": "/api/v1/payouts"}, count=1)
        with pytest.raises(InternalError):
            await anext(client.payouts.list())
