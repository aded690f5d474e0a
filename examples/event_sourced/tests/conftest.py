"""The application, running against a sandbox."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from psp_sandbox.testing import StartApp

from ..app import create_app
from ..facts import Fact, state_of


class DriversApp:
    """The running application, used over HTTP."""

    def __init__(self, http: httpx.Client, database: Path) -> None:
        self.http = http
        self.database = database
        self._trips = 0

    def earns(self, driver: str, fare: str) -> None:
        """Add a trip."""
        self._trips += 1
        self.http.post(f"/drivers/{driver}/trips", json={"id": str(self._trips), "fare": fare}).raise_for_status()

    def withdraws(self, driver: str, suffix: str) -> None:
        """Pay a driver. The last digits of the account choose what becomes of the payout."""
        body = {"account_number": f"1234567890{suffix}"}
        self.http.post(f"/drivers/{driver}/withdrawals", json=body).raise_for_status()

    def shows(self, driver: str) -> tuple[str, list[str]]:
        """Return a driver's balance, and the statuses of the driver's payouts."""
        shown: dict[str, Any] = self.http.get(f"/drivers/{driver}").raise_for_status().json()
        return shown["balance"], shown["statuses"]


@pytest.fixture
def drivers(live_app: StartApp, tmp_path: Path) -> DriversApp:
    """Return the running application. The sandbox sends its webhooks to it."""
    live = live_app(create_app, database=tmp_path / "drivers.db")
    return DriversApp(live.client, tmp_path / "drivers.db")


@pytest.fixture
def psp_books(drivers: DriversApp) -> list[tuple[str, str, str]]:
    """Return what follows from the stored facts, for `pytest --psp-explore`."""
    with sqlite3.connect(drivers.database) as db:
        rows = db.execute("SELECT kind, driver, data FROM facts ORDER BY number").fetchall()
    db.close()
    state = state_of(Fact(kind, driver, json.loads(data)) for kind, driver, data in rows)
    payouts = [one for driver in state.values() for one in driver.withdrawals.values()]
    return [(one.reference, one.status, f"{one.amount:.2f}") for one in payouts]


@pytest.fixture
def psp_status_names() -> dict[str, None]:
    """Return the status of payouts that the sandbox does not have, because it refused them."""
    return {"REFUSED": None}


@pytest.fixture
def psp_restart(drivers: DriversApp) -> Callable[[], object]:
    """Return what the application does when it starts again. All else is in its database, so that is all a restart changes."""
    return lambda: drivers.http.post("/withdrawals/resend").raise_for_status()
