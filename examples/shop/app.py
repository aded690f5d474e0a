"""The shop's HTTP interface.

PSP_URL=... PSP_API_KEY=... PSP_WEBHOOK_SECRET=whsec_... flask --app examples.shop.app run
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import IntegrityError
from typing import Any

from flask import Flask, request

from .money import to_minor, to_text
from .payments import Payments
from .psp import Psp
from .store import Store, add_entry, balance_of
from .webhooks import is_authentic

Answer = tuple[dict[str, Any], int]


def _variable(name: str) -> Any:
    return field(default_factory=lambda: os.environ[name])


@dataclass(frozen=True)
class Settings:
    """The shop's settings, by default from the environment."""

    psp_url: str = _variable("PSP_URL")
    api_key: str = _variable("PSP_API_KEY")
    webhook_secret: str = _variable("PSP_WEBHOOK_SECRET")
    database: Path = Path("shop.db")
    lock_seconds: float = 5.0
    """How long a request waits for the database."""
    retry_pause: float = 0.5
    """The pause in seconds before the second attempt of a call to the PSP."""


def create_app(settings: Settings | None = None) -> Flask:
    """Create the shop. It first finishes what a crash interrupted: payouts without an answer, and stored webhooks."""
    given = settings or Settings()
    store = Store(given.database, given.lock_seconds)
    psp = Psp(given.psp_url, given.api_key, given.retry_pause)
    payments = Payments(store, psp)
    payments.process_events()
    payments.send_unsent()
    app = Flask(__name__)
    app.extensions["psp"] = psp

    @app.post("/sellers")
    def add_seller() -> Answer:
        body = request.get_json()
        with store.transaction() as db:
            db.execute("INSERT INTO sellers VALUES (?, ?, ?)", [body["id"], body["bank_code"], body["account_number"]])
        return {"id": body["id"]}, 201

    @app.post("/orders")
    def add_order() -> Answer:
        body = request.get_json()
        try:
            total = to_minor(body["total"])
        except ValueError as error:
            return {"error": str(error)}, 422
        with store.transaction() as db:
            try:
                db.execute("INSERT INTO orders VALUES (?, ?, ?)", [body["id"], body["seller_id"], total])
            except IntegrityError:
                return {"error": f"order {body['id']} exists"}, 409
            add_entry(db, body["seller_id"], total, "order", body["id"])
        return {"id": body["id"]}, 201

    @app.get("/sellers/<seller_id>")
    def show_seller(seller_id: str) -> Answer:
        with store.transaction() as db:
            payouts = db.execute("SELECT * FROM payouts WHERE seller_id = ? ORDER BY rowid", [seller_id]).fetchall()
            balance = balance_of(db, seller_id)
        shown = [{"id": payout["id"], "amount": to_text(payout["amount"]), "status": payout["status"]} for payout in payouts]
        return {"balance": to_text(balance), "payouts": shown}, 200

    @app.post("/payouts")
    def pay_sellers() -> Answer:
        return {**payments.pay_sellers()}, 200

    @app.post("/webhooks/psp")
    def receive_webhook() -> Answer:
        body = request.get_data()  # the signature is that of these bytes, not of parsed and rewritten JSON
        headers = {name.lower(): value for name, value in request.headers}
        if not is_authentic(given.webhook_secret, headers, body):
            return {"error": "invalid signature"}, 401
        # Store first, then answer: whatever happens next, the event is not lost. A duplicate is stored already.
        with store.transaction() as db:
            db.execute("INSERT INTO events (id, body) VALUES (?, ?) ON CONFLICT DO NOTHING", [headers["webhook-id"], body])
        payments.process_events()
        return {}, 200

    return app
