"""Find the table into which COPY writes."""

from typing import TYPE_CHECKING, Any, Final

from sandbox.infrastructure.db.statements import read_statements

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_SQL: Final = read_statements(__name__)
_FIND: Final = _SQL["find"]


async def copy_target(conn: "PoolConnectionProxy[Any]", name: str) -> tuple[str, str]:
    """Return the table that a name means in this session, and the table's schema. If it means a view, return the view's table.

    On a distributed database, a name means a view of the shard's table, and COPY cannot write to a view. Raises asyncpg's
    UndefinedTableError.
    """
    record = await conn.fetchrow(_FIND, name)
    assert record is not None, "a view without a table"
    return record["name"], record["schema"]
