"""The shop's database: one SQLite file."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS sellers (id TEXT PRIMARY KEY, bank_code TEXT NOT NULL, account_number TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, seller_id TEXT NOT NULL REFERENCES sellers, total INTEGER NOT NULL);
-- What the shop owes its sellers, in paisa. A seller's balance is the sum of the seller's entries.
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY, seller_id TEXT NOT NULL REFERENCES sellers, amount INTEGER NOT NULL, reason TEXT NOT NULL,
    reference TEXT NOT NULL
);
-- The id is both the merchant reference and the idempotency key. Until the PSP has answered, `psp_id` is null.
CREATE TABLE IF NOT EXISTS payouts (
    id TEXT PRIMARY KEY, seller_id TEXT NOT NULL REFERENCES sellers, amount INTEGER NOT NULL, psp_id TEXT,
    status TEXT NOT NULL DEFAULT 'UNSENT', version INTEGER NOT NULL DEFAULT 0
);
-- Each webhook, as it arrived. It is processed when `is_processed` is 1.
CREATE TABLE IF NOT EXISTS events (
    id TEXT PRIMARY KEY, body BLOB NOT NULL, is_processed INTEGER NOT NULL DEFAULT 0, received_at TEXT DEFAULT CURRENT_TIMESTAMP
);
"""


class Store:
    """The database. Each transaction has its own connection, so threads and processes can share the file."""

    def __init__(self, path: Path, lock_seconds: float = 5.0) -> None:
        """Open or create the database. A transaction waits at most `lock_seconds` for others to end."""
        self._path = path
        self._lock_seconds = lock_seconds
        with self._connect() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run a block in a transaction that other writers wait for. Commit at its end; roll back if it raises."""
        with self._connect() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=self._lock_seconds, isolation_level=None)
        connection.row_factory = sqlite3.Row
        try:
            yield connection
        finally:
            connection.close()


def balance_of(db: sqlite3.Connection, seller_id: str) -> int:
    """Return what the shop owes a seller, in paisa."""
    (total,) = db.execute("SELECT coalesce(sum(amount), 0) FROM entries WHERE seller_id = ?", [seller_id]).fetchone()
    return int(total)


def add_entry(db: sqlite3.Connection, seller_id: str, amount: int, reason: str, reference: str) -> None:
    """Change a seller's balance by an amount in paisa."""
    db.execute(
        "INSERT INTO entries (seller_id, amount, reason, reference) VALUES (?, ?, ?, ?)", [seller_id, amount, reason, reference]
    )
