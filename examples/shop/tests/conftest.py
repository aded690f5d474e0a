"""The shop, running against a sandbox."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from psp_sandbox.testing import StartApp

from ..app import Settings, create_app
from ..money import to_text
from ..store import Store


class Shop:
    """The running shop, used over HTTP as by its customers and its staff."""

    http: httpx.Client
    endpoint_id: str

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.app = create_app(settings)
        self._orders = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Serve a request with the present process of the shop."""
        return self.app(environ, start_response)

    def restart(self, **changed: Any) -> None:
        """Start the shop again, with the same database."""
        self.app = create_app(replace(self.settings, **changed))

    def add_seller(self, seller: str, suffix: str = "0001") -> None:
        """Add a seller. The last digits of the account choose what becomes of payouts."""
        body = {"id": seller, "bank_code": "HBL", "account_number": f"1234567890{suffix}"}
        self.http.post("/sellers", json=body).raise_for_status()

    def sell(self, seller: str, total: str) -> None:
        """Place an order."""
        self._orders += 1
        self.http.post("/orders", json={"id": str(self._orders), "seller_id": seller, "total": total}).raise_for_status()

    def pay(self) -> dict[str, list[str]]:
        """Pay all sellers. Return the ids of the payouts."""
        paid: dict[str, list[str]] = self.http.post("/payouts").raise_for_status().json()
        return paid

    def shows(self, seller: str) -> tuple[str, list[str]]:
        """Return what the shop owes a seller, and the statuses of the seller's payouts."""
        shown = self.http.get(f"/sellers/{seller}").raise_for_status().json()
        return shown["balance"], [payout["status"] for payout in shown["payouts"]]

    def books(self) -> list[tuple[str, str, str, str]]:
        """Return reference, status, amount and spent money of each payout, as the shop has booked it.

        What was spent comes from the entries, so a mistake in a seller's balance shows even if the status is right. A payout
        that the PSP refused does not exist there.
        """
        with Store(self.settings.database).transaction() as db:
            rows = db.execute(
                "SELECT payouts.id, status, payouts.amount, -coalesce(sum(entries.amount), 0) AS spent FROM payouts"
                " LEFT JOIN entries ON reference = payouts.id WHERE status != 'REFUSED'"
                " GROUP BY payouts.id ORDER BY payouts.rowid"
            ).fetchall()
        return [(row["id"], row["status"], to_text(row["amount"]), to_text(row["spent"])) for row in rows]


@pytest.fixture
def shop(live_app: StartApp, tmp_path: Path) -> Shop:
    """Return the running shop. The sandbox sends its webhooks to it."""

    def create(env: Mapping[str, str]) -> Shop:
        database = tmp_path / "shop.db"
        return Shop(Settings(env["PSP_URL"], env["PSP_API_KEY"], env["PSP_WEBHOOK_SECRET"], database, retry_pause=0.01))

    live = live_app(create, path="/webhooks/psp")
    shop: Shop = live.app
    shop.endpoint_id, shop.http = live.endpoint_id, live.client
    return shop


@pytest.fixture
def psp_books(shop: Shop) -> list[tuple[str, str, str, str]]:
    """Return what the shop believes about its payouts. `pytest --psp-explore` compares it with what the sandbox did."""
    return shop.books()
