"""The shop, against a sandbox that speaks Safepay Raast."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from flask import Flask

from psp_sandbox.testing import StartApp, World

from ..safepay import Safepay
from ..shop import Shop, create_app


class Running:
    """The running shop, used over HTTP."""

    http: httpx.Client

    def __init__(self, psp: World, database: Path) -> None:
        self.shop = Shop(database, Safepay(psp.safepay.url, psp.safepay.aggregator_id, psp.safepay.key, retries=0))

    def pay(self, iban: str, amount: str) -> str:
        """Pay, and return the request id."""
        paid = self.http.post("/payouts", json={"iban": iban, "amount": amount}).raise_for_status()
        return str(paid.json()["request_id"])

    def statuses(self) -> list[str]:
        """Return the statuses of all payouts."""
        return [payout["status"] for payout in self.shop.payouts()]


@pytest.fixture
def running(psp: World, live_app: StartApp, tmp_path: Path) -> Running:
    """Return the running shop. The sandbox sends it webhooks as Safepay does."""
    running = Running(psp, tmp_path / "shop.db")

    def create() -> Flask:
        return create_app(running.shop)

    live = live_app(create, path="/webhooks/safepay")
    psp.client.webhook_endpoints.delete(live.endpoint_id)  # it gets the sandbox's own webhooks
    running.shop.webhook_secret = psp.safepay.subscribe(live.webhook_url)
    running.http = live.client
    return running


@pytest.fixture
def psp_books(running: Running) -> list[tuple[str, str, str, Decimal]]:
    """Return the shop's books for `pytest --psp-explore`: request id, status, amount, and what was spent."""
    return [
        (row["request_id"], row["status"], row["amount"], sum(map(Decimal, row["spent"].split(",")), Decimal(0)))
        for row in running.shop.payouts()
    ]


@pytest.fixture
def psp_status_names() -> dict[str, str | tuple[str, ...] | None]:
    """Return what Safepay's statuses are called by the sandbox."""
    return {
        "UNSENT": None,
        "REFUSED": None,
        "P_INITIATED": ("REQUESTED", "PENDING"),
        "P_RECEIVED": ("PROCESSING", "RETRY", "ON_HOLD", "IN_REVIEW"),
        "P_SETTLED": "SUCCESS",
        "P_FAILED": "FAILED",
        "P_CANCELLED": "CANCELLED",
        "P_REJECTED": "REJECTED",
        "P_REVERSED": "RETURNED",
    }


@pytest.fixture
def psp_restart(running: Running) -> Callable[[], None]:
    """Return what the shop does when it starts again."""
    return running.shop.send_unsent
