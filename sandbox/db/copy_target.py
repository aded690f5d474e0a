"""Find the table into which COPY writes."""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

# A view's rule depends on each of the table's columns.
_FIND: Final = """
SELECT t.relname::text AS name, n.nspname::text AS schema
FROM pg_class named LEFT JOIN (
    pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
        AND d.refclassid = 'pg_class'::regclass
) ON named.relkind = 'v' AND r.ev_class = named.oid AND d.refobjid <> named.oid
JOIN pg_class t ON t.oid = coalesce(d.refobjid, named.oid) JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE named.oid = $1::text::regclass LIMIT 1
"""


async def copy_target(conn: "PoolConnectionProxy[Any]", name: str) -> tuple[str, str]:
    """Return the table that a name means in this session, and the table's schema. If it means a view, return the view's table.

    On a distributed database, a name means a view of the shard's table, and COPY cannot write to a view. Raises asyncpg's
    UndefinedTableError.
    """
    record = await conn.fetchrow(_FIND, name)
    assert record is not None, "a view without a table"
    return record["name"], record["schema"]
