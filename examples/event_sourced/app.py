"""The application's HTTP interface, on Litestar.

PSP_URL=... PSP_API_KEY=... PSP_WEBHOOK_SECRET=whsec_... litestar --app examples.event_sourced.app:create_app run
"""

import json
import logging
import os
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from litestar import Litestar, Request, Response, get, post
from standardwebhooks import Webhook, WebhookVerificationError

from .facts import Driver, Fact, Withdrawal, state_of

log = logging.getLogger("drivers")


class Drivers:
    """The stored facts, and the calls to the PSP."""

    def __init__(self, database: Path, psp_url: str, api_key: str) -> None:
        self._database = database
        self._http = httpx.AsyncClient(base_url=psp_url, headers={"X-API-KEY": api_key}, timeout=10)
        with self.transaction() as db:
            # A fact with the same id is the same fact: a webhook that arrives again, for example.
            db.execute(
                "CREATE TABLE IF NOT EXISTS facts (number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, kind TEXT NOT NULL,"
                " driver TEXT NOT NULL, data TEXT NOT NULL)"
            )

    def state(self) -> dict[str, Driver]:
        """Return all drivers, from all facts."""
        with self.transaction() as db:
            return _state(db)

    def add(self, fact: Fact, fact_id: str) -> None:
        """Store a fact."""
        with self.transaction() as db:
            _add(db, fact, fact_id)

    def hear(self, event_id: str, payout: dict[str, Any]) -> None:
        """Store what the PSP tells about a payout. Payouts of others are ignored."""
        with self.transaction() as db:
            driver = next((name for name, one in _state(db).items() if payout["merchant_reference"] in one.withdrawals), None)
            if driver is not None:
                _add(db, Fact("heard", driver, payout), event_id)

    async def withdraw(self, driver: str, account_number: str) -> str | None:
        """Pay a driver the whole balance, and return the payout's reference; None if there is nothing to pay."""
        with self.transaction() as db:
            reference = _request(db, driver, account_number)
        # The request is a fact before the call. A crash can delay the call, but neither repeat nor forget it.
        await self.send_untold()
        return reference

    async def send_untold(self) -> None:
        """Send each withdrawal of which the PSP has told nothing: it is new, or the answer was lost, or a crash came first."""
        for name, driver in self.state().items():
            for withdrawal in driver.withdrawals.values():
                if withdrawal.status == "REQUESTED":
                    await self._send(name, withdrawal)

    async def close(self) -> None:
        """Close the connections to the PSP."""
        await self._http.aclose()

    async def _send(self, driver: str, withdrawal: Withdrawal) -> None:
        body = {
            "merchant_reference": withdrawal.reference,
            "amount": f"{withdrawal.amount:.2f}",
            "dest_type": "BANK",
            "bank_code": "HBL",
            "account_number": withdrawal.account_number,
        }
        headers = {"X-IDEMPOTENCY-KEY": withdrawal.reference}
        try:
            answer = await self._http.post("/api/v1/payouts", json=body, headers=headers)
            if answer.status_code == 409 and answer.json()["code"] == "DUPLICATE_REFERENCE":
                answer = await self._http.get("/api/v1/payouts", params={"merchant_reference": withdrawal.reference})
                told = answer.raise_for_status().json()["data"][0]
            elif answer.status_code in (400, 422):
                self.add(Fact("refused", driver, {"reference": withdrawal.reference}), f"refused {withdrawal.reference}")
                return
            else:
                told = answer.raise_for_status().json()
            told = {name: told[name] for name in ("merchant_reference", "status", "version")}
        except (httpx.HTTPError, ValueError, LookupError) as error:
            # The PSP may have paid. There is no new fact, so the withdrawal is sent again, with the same key.
            log.warning("withdrawal %s has no answer yet: %s", withdrawal.reference, error)
            return
        self.add(Fact("heard", driver, told), f"answer {withdrawal.reference} {told['version']}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run a block in a transaction that other writers wait for."""
        db = sqlite3.connect(self._database, isolation_level=None)
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
        finally:
            db.close()


def _state(db: sqlite3.Connection) -> dict[str, Driver]:
    rows = db.execute("SELECT kind, driver, data FROM facts ORDER BY number").fetchall()
    return state_of(Fact(kind, driver, json.loads(data)) for kind, driver, data in rows)


def _request(db: sqlite3.Connection, driver: str, account_number: str) -> str | None:
    balance = _state(db).get(driver, Driver()).balance
    if balance <= 0:
        return None
    reference = str(uuid.uuid4())
    asked = {"reference": reference, "amount": f"{balance:.2f}", "account_number": account_number}
    _add(db, Fact("requested", driver, asked), reference)
    return reference


def _add(db: sqlite3.Connection, fact: Fact, fact_id: str) -> None:
    values = [fact_id, fact.kind, fact.driver, json.dumps(fact.data)]
    db.execute("INSERT INTO facts (id, kind, driver, data) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", values)


def create_app(env: Mapping[str, str] = os.environ, database: Path = Path("drivers.db")) -> Litestar:
    """Create the application. It sends what was interrupted at its start, and when cron posts to /withdrawals/resend."""
    drivers = Drivers(database, env["PSP_URL"], env["PSP_API_KEY"])
    webhook = Webhook(env["PSP_WEBHOOK_SECRET"])

    @post("/drivers/{driver:str}/trips")
    async def add_trip(request: Request[Any, Any, Any]) -> None:
        driver, data = request.path_params["driver"], await request.json()
        drivers.add(Fact("earned", driver, {"amount": data["fare"]}), f"trip {data['id']}")

    @post("/drivers/{driver:str}/withdrawals")
    async def withdraw(request: Request[Any, Any, Any]) -> dict[str, str | None]:
        driver, data = request.path_params["driver"], await request.json()
        return {"reference": await drivers.withdraw(driver, data["account_number"])}

    @post("/withdrawals/resend")
    async def resend() -> None:
        await drivers.send_untold()

    @get("/drivers/{driver:str}")
    async def show(request: Request[Any, Any, Any]) -> dict[str, Any]:
        known = drivers.state().get(request.path_params["driver"], Driver())
        return {"balance": f"{known.balance:.2f}", "statuses": [one.status for one in known.withdrawals.values()]}

    @post("/webhooks", status_code=200)
    async def receive(request: Request[Any, Any, Any]) -> Response[dict[str, str]]:
        try:
            event = webhook.verify(await request.body(), dict(request.headers))
        except WebhookVerificationError:
            return Response({"error": "invalid signature"}, status_code=401)
        if event["type"].startswith("payout."):
            drivers.hear(event["id"], event["data"])
        return Response({})

    return Litestar(
        [add_trip, withdraw, resend, show, receive],
        on_startup=[drivers.send_untold],
        on_shutdown=[drivers.close],
        openapi_config=None,
    )
