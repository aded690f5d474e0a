"""Build statements that look up and change rows by key, and pass many rows to them as one argument.

A planner without statistics, or with those of smaller merchants, may read all of a large merchant's rows for a few keys. So
look up one row with `by_key`, many rows with `by_key` in a LATERAL subquery, and change many with `update_by_key`. Never use
`= ANY` or an UPDATE with a join. A list query orders by its index's columns and compares them as one row value.
`tests/test_query_plans.py` runs every statement in several states of the planner's statistics.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

_encode: Final = msgspec.json.Encoder().encode


def as_json(rows: Iterable[object]) -> str:
    """Encode rows for `json_to_recordset`: mappings, dataclasses or structs with the columns' names.

    Amounts and times become text, bytes become base64. With one array per column, the driver would need four times as long,
    because it inspects each element several times. The server takes the same time for both.
    """
    return _encode(list(rows)).decode()


def by_key(table: str, column: str, value: str, merchant: str = "$1") -> str:
    """Return a WHERE condition and ORDER BY that find the merchant's row with this `value` through the index on both columns.

    With a plain equality, the planner can choose any index that begins with merchant_id and scan all of the merchant's rows. It
    does so if it expects a single row and that index is smaller. With a range that is ordered by the column, and sorting
    disabled (see `PLANNER`), only the index with that order can be used. The index must be unique. Only FOR NO KEY UPDATE or
    OFFSET 0, which keeps a subquery from becoming a join, may follow.
    """
    where = f"{table}.merchant_id = {merchant} AND {table}.{column} >= {value} AND {table}.{column} <= {value}"
    return f"{where} ORDER BY {table}.merchant_id, {table}.{column}"


def update_by_key(
    table: str,
    *,
    rows: str,
    key: tuple[str, str],
    changes: Mapping[str, str],
    kept: Sequence[str],
    where: str = "true",
    lock: bool = False,
    returning: str = "",
) -> str:
    """Return SQL that updates many rows of the merchant `$1`. It finds each by its primary key, whatever the statistics are.

    `UPDATE ... FROM` is a join. For it, a planner without statistics, or with those of smaller merchants, reads all of the
    merchant's rows. Here a LATERAL lookup reads each row, once for each row of `rows`, and ON CONFLICT writes it through the
    key's index. A row that does not exist is not found by the lookup, so it is never inserted.

    - `rows` is a FROM item with the alias `n`.
    - `key` is the key's column after merchant_id, and an expression of `n`, whose values must be distinct.
    - `changes` maps columns to expressions of `n` and of `k`, the row before the update.
    - `kept` names the other columns that are NOT NULL or that a CHECK compares with the changed ones. They are part of the
      proposed row, but are not written.
    - `where` is a condition on `k`. Rows that do not meet it stay unchanged.
    - `lock` locks each row, in the order of `rows`. It must be true unless the caller holds the merchant's lock.
    - `returning` names columns of `t`, the updated row.
    """
    column, value = key
    columns = [column, *kept, *changes]
    values = [*(f"k.{name}" for name in (column, *kept)), *changes.values()]
    return f"""
INSERT INTO {table} AS t (merchant_id, {", ".join(columns)})
SELECT $1, {", ".join(values)}
FROM {rows} CROSS JOIN LATERAL (
    SELECT * FROM {table} WHERE {by_key(table, column, value)} {"FOR NO KEY UPDATE" if lock else "OFFSET 0"}
) k WHERE {where}
ON CONFLICT (merchant_id, {column}) DO UPDATE SET {", ".join(f"{name} = EXCLUDED.{name}" for name in changes)}
{f"RETURNING {returning}" if returning else ""}"""  # noqa: S608 -- constants of this repository
