"""Many rows as one argument of a statement, and the statement that changes many rows."""

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


def update_by_key(
    table: str,
    *,
    rows: str,
    key: Mapping[str, str],
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

    `rows` is a FROM item called `n`. `key` maps the key's columns behind merchant_id to expressions of `n`; each may occur
    once. `changes` maps columns to expressions of `n` and of `k`, the row as it was. `kept` names the other columns that are
    NOT NULL or that a CHECK compares with these: the row is proposed with them, but they are not written. Rows for which
    `where`, a condition on the table's own columns, does not hold are left alone. Without the merchant's lock `lock` must be
    true: then each row is locked, in the order of `rows`. `returning` names columns of `t`, the row as it is written.
    """
    columns = [*key, *kept, *changes]
    values = [*(f"k.{column}" for column in (*key, *kept)), *changes.values()]
    found = " AND ".join(f"{column} = {value}" for column, value in key.items())
    return f"""
INSERT INTO {table} AS t (merchant_id, {", ".join(columns)})
SELECT $1, {", ".join(values)}
FROM {rows} CROSS JOIN LATERAL (
    SELECT * FROM {table} WHERE merchant_id = $1 AND {found} AND {where} {"FOR NO KEY UPDATE" if lock else "OFFSET 0"}
) k
ON CONFLICT (merchant_id, {", ".join(key)}) DO UPDATE SET {", ".join(f"{column} = EXCLUDED.{column}" for column in changes)}
{f"RETURNING {returning}" if returning else ""}"""  # noqa: S608 -- constants of this repository
