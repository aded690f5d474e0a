"""Pays salaries, and follows what becomes of them by asking. Run it every hour: `python -m examples.polling.payroll`.

Three rules keep it right:

- A salary has one reference, which is also the idempotency key. So sending it again, after any failure, pays it once.
- No answer changes nothing: the next run asks again.
- No status is final. A bank can return money weeks later, and an operator can send a failed payout again.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx

FOLLOWED_DAYS: Final = 60
"""How long a payout can change. Older ones are not asked for."""
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS salaries (
    reference TEXT PRIMARY KEY, account_number TEXT NOT NULL, amount TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'NEW',
    created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
"""
log = logging.getLogger("payroll")


class Payroll:
    """The salaries, in an SQLite file."""

    def __init__(self, database: Path, psp_url: str, api_key: str) -> None:
        self._database = database
        self._http = httpx.Client(base_url=psp_url, headers={"X-API-KEY": api_key}, timeout=10)
        with self._transaction() as db:
            db.execute(SCHEMA)

    def add(self, month: str, employee: str, account_number: str, amount: Decimal) -> str:
        """Add a salary that the next run pays, and return its reference."""
        reference = f"{month}-{employee}"
        with self._transaction() as db:
            values = [reference, account_number, f"{amount:.2f}"]
            db.execute("INSERT INTO salaries (reference, account_number, amount) VALUES (?, ?, ?)", values)
        return reference

    def run(self) -> None:
        """Send what the PSP does not have yet, and ask for all that can still change."""
        for salary in self.salaries():
            if salary["status"] == "NEW":
                self._try(self._send, salary)
        for salary in self.salaries():
            if salary["is_followed"] and salary["status"] != "REFUSED":
                self._try(self._follow, salary)

    def salaries(self) -> list[sqlite3.Row]:
        """Return all salaries, oldest first."""
        with self._transaction() as db:
            return db.execute(
                "SELECT *, created_at > datetime('now', ?) AS is_followed FROM salaries ORDER BY rowid",
                [f"-{FOLLOWED_DAYS} days"],
            ).fetchall()

    def close(self) -> None:
        """Close the connections to the PSP."""
        self._http.close()

    def _try(self, step: Any, salary: sqlite3.Row) -> None:
        try:
            step(salary)
        except (httpx.HTTPError, ValueError, LookupError) as error:
            # Nobody knows what happened. The salary stays as it is, and the next run tries again.
            log.warning("%s: %s", salary["reference"], error)

    def _send(self, salary: sqlite3.Row) -> None:
        body = {
            "merchant_reference": salary["reference"],
            "amount": salary["amount"],
            "dest_type": "BANK",
            "bank_code": "HBL",
            "account_number": salary["account_number"],
        }
        answer = self._http.post("/api/v1/payouts", json=body, headers={"X-IDEMPOTENCY-KEY": salary["reference"]})
        if answer.status_code == 409 and answer.json()["code"] == "DUPLICATE_REFERENCE":
            return  # an earlier run has created it; it is found when we ask for it
        if answer.status_code in (400, 422):
            self._set_status(salary, "REFUSED")
            return
        self._set_status(salary, answer.raise_for_status().json()["status"])

    def _follow(self, salary: sqlite3.Row) -> None:
        answer = self._http.get("/api/v1/payouts", params={"merchant_reference": salary["reference"]})
        for payout in answer.raise_for_status().json()["data"]:
            self._set_status(salary, payout["status"])

    def _set_status(self, salary: sqlite3.Row, status: str) -> None:
        with self._transaction() as db:
            db.execute("UPDATE salaries SET status = ? WHERE reference = ?", [status, salary["reference"]])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._database)
        db.row_factory = sqlite3.Row
        try:
            with db:
                yield db
        finally:
            db.close()


if __name__ == "__main__":
    Payroll(Path("payroll.db"), os.environ["PSP_URL"], os.environ["PSP_API_KEY"]).run()
