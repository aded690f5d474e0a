"""The shop, running against a sandbox."""

from collections.abc import Callable, Iterable, Iterator, Mapping
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
        self._started = [self.app]
        self._orders = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Serve a request with the present process of the shop."""
        return self.app(environ, start_response)

    def restart(self, **changed: Any) -> None:
        """Start the shop again, with the same database."""
        self.app = create_app(replace(self.settings, **changed))
        self._started.append(self.app)

    def close(self) -> None:
        """Close the connections of all processes of the shop."""
        for app in self._started:
            app.extensions["psp"].close()

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


@pytest.fixture
def shop(live_app: StartApp, tmp_path: Path) -> Iterator[Shop]:
    """Return the running shop. The sandbox sends its webhooks to it."""

    def create(env: Mapping[str, str]) -> Shop:
        database = tmp_path / "shop.db"
        return Shop(Settings(env["PSP_URL"], env["PSP_API_KEY"], env["PSP_WEBHOOK_SECRET"], database, retry_pause=0.01))

    live = live_app(create, path="/webhooks/psp")
    shop: Shop = live.app
    shop.endpoint_id, shop.http = live.endpoint_id, live.client
    yield shop
    shop.close()


@pytest.fixture
def psp_books(shop: Shop) -> list[tuple[str, str, str, str]]:
    """Return the shop's books for `pytest --psp-explore`: reference, status, amount, and what the shop's ledger has spent."""
    with Store(shop.settings.database).transaction() as db:
        rows = db.execute(
            "SELECT id, status, amount, (SELECT -sum(amount) FROM entries WHERE reference = payouts.id) AS spent FROM payouts"
        ).fetchall()
    return [(row["id"], row["status"], to_text(row["amount"]), to_text(row["spent"])) for row in rows]


@pytest.fixture
def psp_status_names() -> dict[str, None]:
    """Return the statuses of payouts that the sandbox does not have: the call was refused, or has not been made."""
    return {"REFUSED": None, "UNSENT": None}


@pytest.fixture
def psp_restart(shop: Shop) -> Callable[[], None]:
    """Return what restarts the shop."""
    return shop.restart
