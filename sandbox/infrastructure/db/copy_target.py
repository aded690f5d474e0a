"""Find the table into which COPY writes."""

from typing import Final

from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.statements import read_statements

_SQL: Final = read_statements(__name__)


async def copy_target(conn: Connection, name: str) -> tuple[str, str]:
    """Return the table that a name means in this session, and the table's schema. If it means a view, return the view's table.

    On a distributed database, a name means a view of the shard's table, and COPY cannot write to a view. Raises asyncpg's
    UndefinedTableError.
    """
    record = await conn.fetchrow(_SQL["find"], name)
    assert record is not None, "a view without a table"
    return record["name"], record["schema"]
