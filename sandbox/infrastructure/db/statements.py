"""Named SQL statements, kept in a `.sql` file beside the module that runs them.

How to write them. A planner without statistics, or with those of smaller merchants, may read all of a large merchant's rows for
a few keys. `tests/test_query_plans.py` runs every statement in several states of the planner's statistics.

- **One row by its key** is a range, ordered by the index's columns: `WHERE t.merchant_id = $1 AND t.id >= $2 AND t.id <= $2
  ORDER BY t.merchant_id, t.id`. With a plain equality, the planner can choose any index that begins with merchant_id and scan
  all of the merchant's rows. It does so if it expects a single row and that index is smaller. With a range that is ordered by
  the column, and sorting disabled (`PLANNER`), only the index with that order can be used. The index must be unique.
- **Many rows by their keys** are such a lookup in a LATERAL subquery. Only FOR NO KEY UPDATE, or OFFSET 0, which keeps the
  subquery from becoming a join, may follow. Never use `= ANY` or a join.
- **Changing many rows** is an INSERT with ON CONFLICT. UPDATE ... FROM is a join, for which the planner may read all rows. So
  a LATERAL lookup reads each row (`k`), once for each of the given rows (`n`), whose keys must be distinct. ON CONFLICT then
  writes it through the key's index, and only the columns after DO UPDATE SET change. The other columns of the proposed row
  are those that are NOT NULL, or that a CHECK compares with the changed ones. A row that does not exist is not found by the
  lookup, so it is never inserted. The lookup locks the rows, in the order of `n`, unless the caller holds the merchant's
  lock.
- **A list** orders by its index's columns and compares them as one row value.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Final

_HEADER: Final = re.compile(r"^-- (name|part): (\w+)\n", re.MULTILINE)
_PART: Final = re.compile(r"\{([a-z_]+)\}")


def read_statements(module: str, **parts: str) -> Mapping[str, str]:
    """Return the statements of the `.sql` file beside `module` (pass `__name__`). Raises ValueError as `parse_statements`."""
    package, _, name = module.rpartition(".")
    return parse_statements(files(package).joinpath(f"{name}.sql").read_text("utf-8"), **parts)


def parse_statements(text: str, **parts: str) -> Mapping[str, str]:
    """Return statements by name, without comment lines and the semicolon. `-- name: lock` begins the statement `lock`.

    `-- part: columns` begins a text that later statements include as `{columns}`. `parts` are further such texts. Other words
    in braces stay as they are. Raises ValueError if a statement has no name, a name occurs twice, or a name has no statement or
    more than one.
    """
    header, *sections = _HEADER.split(text)
    if _statement(header):
        raise ValueError(f"a statement has no name: {_statement(header)}")
    known, found = dict(parts), dict[str, str]()
    for kind, name, section in zip(sections[::3], sections[1::3], sections[2::3], strict=True):
        statement = _PART.sub(lambda part: known.get(part[1], part[0]), _statement(section))
        into = found if kind == "name" else known
        if name in into or not statement or ";" in statement:
            raise ValueError(f"{name} must name one statement, once")
        into[name] = statement
    return MappingProxyType(found)


def _statement(text: str) -> str:
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return "\n".join(lines).strip().removesuffix(";")
