"""Send BEGIN in one message with the first statement of its transaction, which saves a round trip.

asyncpg has no API for this: it awaits the reply to each statement. But while it reads the reply to a statement, it skips the
replies of protocol messages that it did not send. `tests/test_pipelined_begin.py` holds what this relies on.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy


def send_with_next_statement(conn: "PoolConnectionProxy[Any]", *statements: str) -> None:
    """Send statements without parameters or rows, to which PostgreSQL replies together with the connection's next statement.

    They must be valid: after an error, PostgreSQL would skip the next statement too.
    """
    if not conn.is_closed():  # otherwise the next statement raises the right error
        conn._con._transport.write(_messages(statements))  # type: ignore[attr-defined]  # not in asyncpg's API, see above


@lru_cache(maxsize=64)
def _messages(statements: Sequence[str]) -> bytes:
    """Return Parse, Bind and Execute for each statement, all unnamed, without the Sync that would ask for replies."""
    parsed = (_message(b"P", b"\0" + statement.encode() + b"\0" + struct.pack("!h", 0)) for statement in statements)
    bound, executed = _message(b"B", b"\0\0" + struct.pack("!hhh", 0, 0, 0)), _message(b"E", b"\0" + struct.pack("!i", 0))
    return b"".join(parse + bound + executed for parse in parsed)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body
