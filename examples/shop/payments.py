"""Pays sellers, and follows what becomes of the payouts."""

import json
import logging
import sqlite3
import uuid
from typing import Any, Final

from .psp import NoAnswerError, Psp, RefusedError
from .store import Store, add_entry, balance_of

UNPAID: Final = frozenset({"FAILED", "CANCELLED", "REJECTED", "RETURNED"})
"""The statuses in which a payout's money is back with us. A FAILED payout leaves it again if it is reinitiated."""
log = logging.getLogger("shop")


class Payments:
    """The payouts to sellers."""

    def __init__(self, store: Store, psp: Psp) -> None:
        self._store = store
        self._psp = psp

    def pay_sellers(self) -> dict[str, list[str]]:
        """Pay each seller the whole balance. Return the ids of payouts: `sent`, `refused`, and `unsent` without an answer."""
        with self._store.transaction() as db:
            for seller in db.execute("SELECT id FROM sellers ORDER BY id").fetchall():
                self._debit(db, seller["id"])
        # The debits are stored before the first call. So a crash can delay a payout, but neither repeat nor forget it.
        return self.send_unsent()

    def send_unsent(self) -> dict[str, list[str]]:
        """Send each payout that has no answer yet: it is new, or the answer was lost, or a crash came first."""
        with self._store.transaction() as db:
            unsent = db.execute(
                "SELECT payouts.*, bank_code, account_number FROM payouts JOIN sellers ON sellers.id = seller_id"
                " WHERE psp_id IS NULL AND status = 'UNSENT' ORDER BY payouts.rowid"
            ).fetchall()
        results: dict[str, list[str]] = {"sent": [], "refused": [], "unsent": []}
        for payout in unsent:
            results[self._send(payout)].append(payout["id"])
        return results

    def process_events(self) -> None:
        """Process the stored webhooks. One that fails is logged, and tried again the next time."""
        with self._store.transaction() as db:
            waiting = db.execute("SELECT id, body FROM events WHERE is_processed = 0 ORDER BY rowid").fetchall()
        for event in waiting:
            try:
                self._process(event["id"], json.loads(event["body"]))
            except Exception:
                log.exception("webhook %s was not processed", event["id"])

    def _debit(self, db: sqlite3.Connection, seller_id: str) -> None:
        amount = balance_of(db, seller_id)
        if amount <= 0:
            return
        payout_id = str(uuid.uuid4())
        db.execute("INSERT INTO payouts (id, seller_id, amount) VALUES (?, ?, ?)", [payout_id, seller_id, amount])
        add_entry(db, seller_id, -amount, "payout", payout_id)

    def _send(self, payout: sqlite3.Row) -> str:
        try:
            created = self._psp.create(payout)
        except RefusedError as refusal:
            log.warning("payout %s was refused: %s", payout["id"], refusal.code)
            with self._store.transaction() as db:
                refused = db.execute("UPDATE payouts SET status = 'REFUSED' WHERE id = ? AND status = 'UNSENT'", [payout["id"]])
                if refused.rowcount == 1:  # two threads can send the same payout
                    add_entry(db, payout["seller_id"], payout["amount"], "refused", payout["id"])
            return "refused"
        except NoAnswerError as error:
            # The PSP may have paid. So the money stays debited until it answers.
            log.warning("payout %s has no answer yet: %s", payout["id"], error)
            return "unsent"
        with self._store.transaction() as db:
            # A webhook can be faster than this answer, and then knows more.
            db.execute("UPDATE payouts SET psp_id = ? WHERE id = ?", [created["id"], payout["id"]])
            db.execute("UPDATE payouts SET status = 'PENDING' WHERE id = ? AND version = 0", [payout["id"]])
        return "sent"

    def _process(self, event_id: str, event: dict[str, Any]) -> None:
        with self._store.transaction() as db:
            # Mark it first: if the change below fails, the mark is rolled back too, and if another thread was faster, we stop.
            marked = db.execute("UPDATE events SET is_processed = 1 WHERE id = ? AND is_processed = 0", [event_id])
            if marked.rowcount == 1 and event["type"].startswith("payout."):
                _apply(db, event["data"])


def _apply(db: sqlite3.Connection, data: dict[str, Any]) -> None:
    """Apply a payout as an event shows it."""
    payout = db.execute("SELECT * FROM payouts WHERE id = ?", [data["merchant_reference"]]).fetchone()
    if payout is None:
        return  # not one of ours
    if data["version"] <= payout["version"]:
        return  # we know this state or a newer one: webhooks can arrive twice, and in any order
    db.execute(
        "UPDATE payouts SET psp_id = ?, status = ?, version = ? WHERE id = ?",
        [data["id"], data["status"], data["version"], payout["id"]],
    )
    # The money follows the state, not the events: of the events between two states, any may be missing or still to come.
    was_back, is_back = payout["status"] in UNPAID, data["status"] in UNPAID
    if is_back and not was_back:
        add_entry(db, payout["seller_id"], payout["amount"], data["status"].lower(), payout["id"])
    elif was_back and not is_back:
        add_entry(db, payout["seller_id"], -payout["amount"], "reinitiated", payout["id"])
