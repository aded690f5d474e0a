"""The listener posts each attempt at most once, and only while its lease lasts."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from sandbox.cli import forwarder
from sandbox.cli.client import Client
from sandbox.cli.failures import Failure
from sandbox.cli.forwarder import Forwarder
from sandbox.webhooks.outbound.sender import SendResult


class Sandbox:
    """Responds to a listener's claims and reports as the test says. Also counts what the listener posts."""

    def __init__(self) -> None:
        self.claims: asyncio.Queue[dict[str, Any] | int] = asyncio.Queue()
        self.reports: asyncio.Queue[list[str]] = asyncio.Queue()
        self.outcomes: list[str | int] = []
        """What becomes of the next reports: an outcome, or a status of a failed request. By default they are recorded."""
        self.asked = asyncio.Semaphore(0)
        """Released by each claim that gets a response."""
        self.posted: list[str] = []
        self.may_respond = asyncio.Event()
        self.may_respond.set()
        self.messages: list[str] = []

    def offer(self, *leases: str, seconds: float = 30, attempt: int = 1, manual: bool = False) -> None:
        """Return these leases of one delivery to the next claim."""
        common = {"delivery_id": "d", "event_id": "e", "event_type": "payout.created", "attempt": attempt, "manual": manual}
        data = [{**common, "headers": {}, "body": lease, "copies": 1, "delay_ms": 0, "lease": lease} for lease in leases]
        self.claims.put_nowait({"data": data, "lease_ends_after_ms": seconds * 1000})

    async def respond(self, request: httpx.Request) -> httpx.Response:
        """Serve one request of the listener."""
        if request.url.path.endswith("/claim"):
            claimed = await self.claims.get()
            self.asked.release()
            return httpx.Response(claimed) if isinstance(claimed, int) else httpx.Response(200, json=claimed)
        outcome = self.outcomes.pop(0) if self.outcomes else "recorded"
        if isinstance(outcome, int):
            return httpx.Response(outcome)
        results = json.loads(request.content)["results"]
        self.reports.put_nowait([result["lease"] for result in results])
        reported = {"outcome": outcome, "at": None, "delivery_status": "SUCCEEDED", "next_attempt_at": None}
        return httpx.Response(200, json={"data": [reported for _ in results]})

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> SendResult:
        """Be the listener's sender."""
        self.posted.append(body.decode())
        await self.may_respond.wait()
        return SendResult(200, {}, "", None, 1)


@pytest.fixture
async def sandbox(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a forwarder during the test."""
    stub = Sandbox()

    def open_async(_: Client) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="http://sandbox", transport=httpx.MockTransport(stub.respond))

    monkeypatch.setattr(Client, "open_async", open_async)
    running = Forwarder(Client("http://sandbox", {}), stub, "id", "http://receiver", lambda *_: None, stub.messages.append)
    task = asyncio.create_task(running.run())
    yield stub
    running.stop()
    await task


async def reported(sandbox: Sandbox) -> list[str]:
    """Return the leases of the next report."""
    return await asyncio.wait_for(sandbox.reports.get(), 10)


async def test_a_delivery_whose_lease_has_nearly_ended_is_not_posted(sandbox: Sandbox) -> None:
    sandbox.offer("old", seconds=forwarder._MAX_ATTEMPT_SECONDS - 1)
    sandbox.offer("new")
    assert await reported(sandbox) == ["new"]
    assert sandbox.posted == ["new"]


async def test_a_delivery_claimed_again_while_it_is_posted_is_reported_under_the_new_lease(sandbox: Sandbox) -> None:
    sandbox.may_respond.clear()
    sandbox.offer("first")
    sandbox.offer("second")
    sandbox.offer()
    for _ in range(3):  # the third claim is sent after the response to the second was handled
        await sandbox.asked.acquire()
    sandbox.may_respond.set()
    assert await reported(sandbox) == ["second"]
    assert len(sandbox.posted) == 1


async def test_a_late_result_is_reported_again_when_its_delivery_is_claimed_again(sandbox: Sandbox) -> None:
    sandbox.outcomes = ["late"]
    sandbox.offer("first")
    assert await reported(sandbox) == ["first"]
    sandbox.offer("second")
    assert await reported(sandbox) == ["second"]
    assert sandbox.posted == ["first"]


async def test_a_resend_is_posted_again(sandbox: Sandbox) -> None:
    sandbox.outcomes = ["late"]
    sandbox.offer("first")
    assert await reported(sandbox) == ["first"]
    sandbox.offer("resent", manual=True)
    assert await reported(sandbox) == ["resent"]
    assert sandbox.posted == ["first", "resent"]


async def test_results_are_kept_until_the_sandbox_is_back(sandbox: Sandbox) -> None:
    sandbox.outcomes = [503, 502, 429, 408]
    sandbox.offer("only")
    assert await reported(sandbox) == ["only"]
    assert len(sandbox.messages) == 2
    assert "Connected again." in sandbox.messages


async def test_a_refusal_ends_the_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_async(_: Client) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="http://s", transport=httpx.MockTransport(lambda _: httpx.Response(401, json={})))

    monkeypatch.setattr(Client, "open_async", open_async)
    with pytest.raises(Failure):
        await Forwarder(Client("http://s", {}), Sandbox(), "id", "http://r", lambda *_: None, lambda _: None).run()
