"""A webhook receiver that keeps its state in SQLite, so that it survives a crash, and two that do not.

    psp certify http://127.0.0.1:9000/webhooks --secret whsec_... --probe-url http://127.0.0.1:9000/probe \\
        --app "python -m examples.receivers.durable --secret whsec_... --file receiver.db"
"""

import argparse
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from examples.receivers.correct_python import Receiver, serve

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS webhooks (id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS payouts (id TEXT PRIMARY KEY, status TEXT, version INTEGER, applied INTEGER);
"""


class Durable(Receiver):
    """Remembers the webhook's id and acts on its event in one transaction, which is over before it answers."""

    def __init__(self, secret: str, path: str) -> None:
        super().__init__(secret)
        self._path = path
        with self._transaction() as db:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)

    def act_on(self, event: dict[str, Any]) -> None:
        with self._transaction() as db:
            if db.execute("INSERT OR IGNORE INTO webhooks VALUES (?)", [event["id"]]).rowcount:
                self._apply(db, event["data"])

    @staticmethod
    def _apply(db: sqlite3.Connection, data: dict[str, Any]) -> None:
        db.execute(
            "INSERT INTO payouts VALUES (:id, :status, :version, 1) ON CONFLICT (id) DO UPDATE SET status = excluded.status,"
            " version = excluded.version, applied = applied + 1 WHERE version < excluded.version",
            {name: data[name] for name in ("id", "status", "version")},
        )

    def probe(self, payout_id: str) -> dict[str, Any]:
        with self._transaction() as db:
            row = db.execute("SELECT status, applied FROM payouts WHERE id = ?", [payout_id]).fetchone()
        status, applied = row or (None, 0)
        return {"status": status, "applied": applied}

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous = OFF")  # a crash of the process, not of the machine
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        finally:
            db.close()


class AnswersFirst(Durable):
    """Answers, and acts then, from a queue in memory."""

    def act_on(self, event: dict[str, Any]) -> None:
        threading.Timer(0.05, super().act_on, [event]).start()


class StoresIdFirst(Durable):
    """Stores the webhook's id in a transaction of its own, and acts then. After a crash in between, the retry looks done."""

    def act_on(self, event: dict[str, Any]) -> None:
        with self._transaction() as db:
            is_new = db.execute("INSERT OR IGNORE INTO webhooks VALUES (?)", [event["id"]]).rowcount
        if is_new:
            time.sleep(0.02)  # the work
            with self._transaction() as db:
                self._apply(db, event["data"])


KINDS: Final = {"correct": Durable, "answers_first": AnswersFirst, "stores_id_first": StoresIdFirst}


def main() -> None:
    """Serve a receiver."""
    parser = argparse.ArgumentParser(description="A receiver of webhooks with a database.")
    parser.add_argument("kind", choices=KINDS, nargs="?", default="correct")
    parser.add_argument("--secret", required=True, help="the endpoint's secret, whsec_...")
    parser.add_argument("--file", required=True, help="the database's file")
    parser.add_argument("--port", type=int, default=9000)
    given = parser.parse_args()
    serve(KINDS[given.kind](given.secret, given.file), given.port)


if __name__ == "__main__":
    main()
