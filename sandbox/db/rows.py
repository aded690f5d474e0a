"""Build statements that look up and change rows by key, and pass many rows to them as one argument.

A planner without statistics, or with those of smaller merchants, may read all of a large merchant's rows for a few keys. So
look a row up with `by_key`, many rows with `by_key` in a LATERAL subquery, and change many with `update_by_key`; never use
`= ANY` or an UPDATE that joins. A list names the order of its index and compares whole rows. `tests/test_query_plans.py` runs
every statement in several states of the planner's statistics.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

_encode: Final = msgspec.json.Encoder().encode


def as_json(rows: Iterable[object]) -> str:
    """Rows (mappings, dataclasses or structs with the columns' names) for `json_to_recordset`.

    Amounts and times become text, bytes base64. An array a column costs the driver four times as much, for it looks at each
    element several times; the server takes as long for the one as for the other.
    """
    return _encode(list(rows)).decode()


def by_key(table: str, column: str, value: str, merchant: str = "$1") -> str:
    """SQL behind WHERE that finds the row of the merchant whose `column` is `value`, in the index of both columns and no other.

    For an equality the planner may take any index that begins with merchant_id, and look at all of the merchant's rows: it does
    so where it believes that there is one, if that index is the smaller. A range in the order of the column, which is not to be
    sorted for (see `PLANNER`), leaves it the one index that has this order. The index must be unique. Nothing may follow but
    FOR NO KEY UPDATE, or OFFSET 0, which keeps a subquery from becoming a join.
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
    """SQL that changes many rows of the merchant `$1`, each looked up by its primary key whatever the planner believes.

    An `UPDATE ... FROM` is a join, and a planner without statistics, or with those of smaller merchants, reads all of a
    merchant's rows for it. Here each row is read by a LATERAL look-up, which can run only once for each row of `rows`, and is
    written through the key's own index by ON CONFLICT. A row that is not there is not looked up, so it is never inserted.

    `rows` is a FROM item called `n`. `key` is the key's column behind merchant_id, and an expression of `n`; each may occur
    once. `changes` maps columns to expressions of `n` and of `k`, the row as it was. `kept` names the other columns that are
    NOT NULL or that a CHECK compares with these: the row is proposed with them, but they are not written. Rows for which
    `where`, a condition on `k`, does not hold are left alone. Without the merchant's lock `lock` must be true: then each row is
    locked, in the order of `rows`. `returning` names columns of `t`, the row as it is written.
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
