"""A shop that pays its sellers over Safepay Raast, with the adapter in `safepay.py`.

- A payout and its `request_id` are stored before the first call, and every repeat has the same id. So it is paid once.
- No answer, half an answer and a 5xx change nothing: `send_unsent` asks again, also when the shop starts.
- A webhook says only that something has changed. The shop asks for the payment, so order and repeats do not matter.
"""

import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from flask import Flask, request

from .safepay import Safepay, SafepayError, verify

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS payouts (
    request_id TEXT PRIMARY KEY, iban TEXT NOT NULL, amount TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'UNSENT'
);
-- What was paid out, in rupees, and what came back.
CREATE TABLE IF NOT EXISTS entries (request_id TEXT NOT NULL REFERENCES payouts, amount TEXT NOT NULL);
"""
UNPAID: Final = frozenset({"REFUSED", "P_FAILED", "P_CANCELLED", "P_REJECTED", "P_REVERSED"})
"""The statuses in which a payout's money is back."""
ATTEMPTS: Final = 3
PAUSE_SECONDS: Final = 0.01


class Shop:
    """The payouts, in an SQLite file. `webhook_secret` signs the webhooks. `safepay` need not repeat calls: the shop does."""

    def __init__(self, database: Path, safepay: Safepay) -> None:
        self._database = database
        self._safepay = safepay
        self._asking = threading.Lock()
        self.webhook_secret = ""
        with self._transaction() as db:
            db.executescript(SCHEMA)

    def pay(self, iban: str, amount: str) -> str:
        """Pay an amount in rupees. Return the request id."""
        request_id = str(uuid.uuid4())
        with self._transaction() as db:
            db.execute("INSERT INTO payouts (request_id, iban, amount) VALUES (?, ?, ?)", [request_id, iban, amount])
            db.execute("INSERT INTO entries VALUES (?, ?)", [request_id, amount])
        self.send_unsent()
        return request_id

    def send_unsent(self) -> None:
        """Send each payout that has no answer yet."""
        for payout in self.payouts():
            if payout["status"] == "UNSENT":
                self._send(payout)

    def receive(self, headers: Mapping[str, str], body: bytes) -> int:
        """Handle a webhook. Return the HTTP status of the answer. Safepay sends again after a 5xx only."""
        event = verify(self.webhook_secret, headers, body)
        if event is None:
            return 401
        try:
            self._follow(event["subject"]["payment"])
        except (httpx.HTTPError, ValueError, LookupError, SafepayError):
            return 503
        return 200

    def payouts(self) -> list[sqlite3.Row]:
        """Return all payouts, oldest first, with what was spent on each."""
        with self._transaction() as db:
            return db.execute(
                "SELECT *, (SELECT group_concat(amount) FROM entries WHERE entries.request_id = payouts.request_id) AS spent"
                " FROM payouts ORDER BY rowid"
            ).fetchall()

    def _send(self, payout: sqlite3.Row) -> None:
        request_id = payout["request_id"]
        for attempt in range(ATTEMPTS):
            time.sleep(PAUSE_SECONDS * attempt)
            try:
                self._safepay.payout(request_id, payout["amount"], payout["iban"])
                self._follow({"request_id": request_id})
                return
            except SafepayError as error:
                if error.status == 400:
                    self._set(request_id, "REFUSED")
                    return
            except (httpx.HTTPError, ValueError, LookupError):
                pass  # Nobody knows what happened, so only the same request id is safe.

    def _follow(self, payment: dict[str, Any]) -> None:
        with self._asking:  # else an older answer could be stored after a newer one
            found = self._safepay.find(payment["request_id"])
            if found is not None:
                self._set(found["request_id"], found["status"])

    def _set(self, request_id: str, status: str) -> None:
        with self._transaction() as db:
            payout = db.execute("SELECT * FROM payouts WHERE request_id = ?", [request_id]).fetchone()
            if payout is None:
                return  # not one of ours
            db.execute("UPDATE payouts SET status = ? WHERE request_id = ?", [status, request_id])
            was_back, is_back = payout["status"] in UNPAID, status in UNPAID
            if was_back != is_back:
                sign = "-" if is_back else ""
                db.execute("INSERT INTO entries VALUES (?, ?)", [request_id, sign + payout["amount"]])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._database)
        db.row_factory = sqlite3.Row
        try:
            with db:
                yield db
        finally:
            db.close()


def create_app(shop: Shop) -> Flask:
    """Return the shop's HTTP interface. It first sends what a crash has interrupted."""
    shop.send_unsent()
    app = Flask(__name__)

    @app.post("/payouts")
    def pay() -> dict[str, str]:
        body = request.get_json()
        return {"request_id": shop.pay(body["iban"], body["amount"])}

    @app.post("/webhooks/safepay")
    def receive() -> tuple[str, int]:
        return "", shop.receive(dict(request.headers), request.get_data())

    return app
