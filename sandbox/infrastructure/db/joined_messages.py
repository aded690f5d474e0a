"""Send BEGIN in one message with a transaction's first statement, and COMMIT with its last one, which saves two round trips.

asyncpg has no API for this: it awaits the reply to each statement. But while it reads the reply to a statement, it skips the
replies of protocol messages that it did not send. `tests/test_joined_messages.py` tests what this relies on.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

import asyncpg

from sandbox.infrastructure.db.connector import Connection


class _JoiningTransport:
    """Adds messages in front of what asyncpg sends, and behind the next statement that it executes."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.before = b""
        self.behind = b""
        self.prepared: set[str] = set()
        """The statements with which COMMIT may be joined."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: memoryview) -> None:
        """Send asyncpg's message. One that executes a prepared statement begins with Bind and ends with Sync."""
        if self.behind and data[0] == ord("B") and bytes(data[-len(_SYNC) :]) == _SYNC:
            self.writelines((data[: -len(_SYNC)], self.behind, _SYNC))
            self.behind = b""
        elif self.before:
            self.writelines((data,))
        else:
            self._transport.write(data)

    def writelines(self, parts: Iterable[bytes | memoryview]) -> None:
        """Send a message in one system call."""
        self._transport.write(b"".join((self.before, *parts)))
        self.before = b""


class _Protocol(asyncpg.protocol.Protocol):
    """asyncpg's protocol, on a transport that joins messages."""

    def connection_made(self, transport: object) -> None:
        self.joining = _JoiningTransport(transport)
        super().connection_made(self.joining)


asyncpg.protocol.Protocol = _Protocol  # type: ignore[misc, assignment]  # asyncpg has no option for it


def send_with_next_statement(conn: Connection, *statements: str) -> None:
    """Send statements without parameters or rows in front of the connection's next statement.

    They must be valid: after an error, PostgreSQL would skip the next statement too.
    """
    if not conn.is_closed():  # otherwise the next statement raises the right error
        _transport(conn).before = _messages(statements)


@contextmanager
def commit_joined(conn: Connection, statement: str) -> Iterator[None]:
    """Send COMMIT with the statement that the block executes, with parameters. If it fails, PostgreSQL skips the COMMIT.

    The first execution on a connection sends no COMMIT: when asyncpg prepares a statement, it may first execute another one, to
    look up types, and the COMMIT would end the transaction before the statement.
    """
    transport = _transport(conn)
    if statement in transport.prepared:
        transport.behind = _messages(("COMMIT",))
    try:
        yield
        transport.prepared.add(statement)
    finally:
        transport.behind = b""


def is_open(conn: Connection) -> bool:
    """Return whether a transaction is open, or will be with the next statement."""
    return conn.is_in_transaction() or bool(_transport(conn).before)


def _transport(conn: Connection) -> _JoiningTransport:
    found: _JoiningTransport = conn._con._protocol.joining  # type: ignore[attr-defined]  # not in asyncpg's API, see above
    return found


@lru_cache(maxsize=64)
def _messages(statements: Sequence[str]) -> bytes:
    """Return Parse, Bind and Execute for each statement, all unnamed, without the Sync that would ask for replies."""
    parsed = (_message(b"P", b"\0" + statement.encode() + b"\0" + struct.pack("!h", 0)) for statement in statements)
    bound, executed = _message(b"B", b"\0\0" + struct.pack("!hhh", 0, 0, 0)), _message(b"E", b"\0" + struct.pack("!i", 0))
    return b"".join(parse + bound + executed for parse in parsed)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


_SYNC: Final = _message(b"S", b"")
