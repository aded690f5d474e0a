"""Each statement in a `.sql` file filters every table by merchant, and the module beside the file loads it."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from sandbox.db.statements import parse_statements, read_statements
from sandbox.merchants.tables import TABLES

ROOT = Path(__file__).parent.parent
# Skip the benchmarks' scripts: they measure PostgreSQL, and no module loads their statements.
_ALL = [path for path in sorted(ROOT.glob("sandbox/**/*.sql")) if "bench" not in path.parts]
FUNCTIONS = [path for path in _ALL if "CREATE OR REPLACE FUNCTION" in path.read_text()]
FILES = [path for path in _ALL if path not in FUNCTIONS]
_TABLE = re.compile(rf"(?<![\w.])(?<!AS )({'|'.join(TABLES)})\b(?!\.)(?:\s+(?:AS\s+)?(\w+))?")
_INSERT = re.compile(r"INTO \w+(?: AS \w+)? \(merchant_id,[^()]*\)\s+(?:SELECT |VALUES \()(?:\$1|k\.merchant_id),")
_SEVERAL_MERCHANTS = re.compile(r"unnest\(\$1::uuid\[\][^()]*\) AS m \(merchant_id\b")
_FILTER = re.compile(r"(?:(\w+)\.)?\bmerchant_id = \$1(?!\d)")


def tables_without_merchant(statement: str) -> list[str]:
    """Return the tables that a statement names without `merchant_id = $1`, or inserts into without `$1` as merchant_id.

    If `$1` is an array of merchants, read as `m`, the same applies to `m.merchant_id`.
    The filter must be in the same query, not in an outer or nested query. If a query has several tables, it needs one for each.
    """
    if _SEVERAL_MERCHANTS.search(statement):
        statement = re.sub(r"\bm\.merchant_id\b", "$1", statement)
    found = []
    for table in _TABLE.finditer(statement):
        if statement[: table.start()].endswith("INTO "):
            filtered = _INSERT.match(statement, table.start() - len("INTO "))
        else:
            query = _query_around(statement, table.start())
            names = {table[1], table[2]} | ({""} if len(_tables_read(query)) == 1 else set())
            filtered = names & set(_FILTER.findall(query))
        if not filtered:
            found.append(table[1])
    return found


def _query_around(statement: str, position: int) -> str:
    """Return the text between the parentheses around a position, without any nested parentheses."""
    start = end = position
    depth = 0
    while start > 0 and (depth := depth + {")": 1, "(": -1}.get(statement[start - 1], 0)) >= 0:
        start -= 1
    depth = 0
    while end < len(statement) and (depth := depth + {"(": 1, ")": -1}.get(statement[end], 0)) >= 0:
        end += 1
    text, nested = statement[start:end], 1
    while nested:
        text, nested = re.subn(r"\([^()]*\)", " ", text)
    return text


def _tables_read(query: str) -> list[str]:
    return [table[1] for table in _TABLE.finditer(query) if not query[: table.start()].endswith("INTO ")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_table_is_filtered_by_the_merchant(path: Path) -> None:
    statements = parse_statements(path.read_text())
    assert {name: tables for name, text in statements.items() if (tables := tables_without_merchant(text))} == {}


@pytest.mark.parametrize("path", FUNCTIONS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_table_of_a_function_is_filtered_by_the_merchant(path: Path) -> None:
    """The merchant is an argument of the function, or an item of an array argument."""
    text = re.sub(r"--[^\n]*|'[^']*'", "", path.read_text())
    (body,) = re.findall(r"AS \$function\$(.*)\$function\$;", text, re.DOTALL)
    statements = re.sub(r"p_merchant\b|p_merchants\[g\.unit\]", "$1", body).split(";")
    assert len(statements) > 5
    assert {statement: tables for statement in statements if (tables := tables_without_merchant(statement))} == {}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_module_beside_a_file_has_each_statement_as_a_constant(path: Path) -> None:
    """The tests of query plans and of writes find the statements there."""
    module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    constants = [value for value in vars(module).values() if isinstance(value, str)]
    assert [name for name, text in parse_statements(path.read_text()).items() if text not in constants] == []


@pytest.mark.parametrize(
    ("statement", "tables"),
    [
        ("SELECT id FROM payouts WHERE id = $2", ["payouts"]),
        ("SELECT id FROM payouts WHERE merchant_id = $10", ["payouts"]),
        ("SELECT id FROM payouts p, users u WHERE p.merchant_id = $1 AND p.user_id = u.id", ["users"]),
        ("SELECT id FROM payouts p JOIN users u ON u.merchant_id = p.merchant_id WHERE p.merchant_id = $1", ["users"]),
        ("SELECT id FROM payouts p JOIN users u ON u.id = p.user_id WHERE merchant_id = $1", ["payouts", "users"]),
        ("SELECT id FROM users u WHERE merchant_id = $1 AND EXISTS (SELECT FROM sales WHERE user_id = u.id)", ["sales"]),
        ("SELECT id FROM users u WHERE EXISTS (SELECT FROM sales WHERE merchant_id = $1 AND user_id = u.id)", ["users"]),
        ("UPDATE payouts SET due_at = NULL WHERE id = $2", ["payouts"]),
        ("INSERT INTO payouts (merchant_id, id) SELECT $2, id FROM unnest($1::uuid[]) AS n (id)", ["payouts"]),
        ("INSERT INTO payouts (id, merchant_id) SELECT $1, id FROM unnest($2::uuid[]) AS n (id)", ["payouts"]),
        ("INSERT INTO payouts (merchant_id, id) SELECT $1, id FROM users", ["users"]),
        ("INSERT INTO payouts AS p (merchant_id, id) SELECT $1, id FROM users WHERE merchant_id = $1", []),
        ("SELECT id FROM unnest($2::uuid[]) AS m (merchant_id) JOIN payouts p ON p.merchant_id = m.merchant_id", ["payouts"]),
        ("SELECT id FROM unnest($1::uuid[]) AS m (merchant_id) JOIN payouts p ON p.merchant_id = m.merchant_id", []),
        ("SELECT id FROM payouts AS p JOIN users u ON u.merchant_id = $1 WHERE p.merchant_id = $1", []),
    ],
)
def test_the_checker_finds_tables_without_the_merchant(statement: str, tables: list[str]) -> None:
    assert tables_without_merchant(statement) == tables


def test_statements_are_read_by_name_without_comments() -> None:
    text = "-- Header\n\n-- name: first\n-- Why.\nSELECT 1\n    -- Inside.\n    + 2;\n\n-- name: second\nSELECT 3;\n"
    assert parse_statements(text) == {"first": "SELECT 1\n    + 2", "second": "SELECT 3"}
    assert read_statements("sandbox.unit_of_work.users")["credit"].startswith("INSERT INTO users")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("SELECT 1;\n-- name: first\nSELECT 2;\n", "a statement has no name: SELECT 1"),
        ("-- name: first\nSELECT 1;\n-- name: first\nSELECT 2;\n", "first must name one statement, once"),
        ("-- name: first\n-- name: second\nSELECT 2;\n", "first must name one statement, once"),
        ("-- name: first\nSELECT 1;\nSELECT 2;\n", "first must name one statement, once"),
    ],
)
def test_a_file_with_an_unclear_name_is_refused(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=f"^{error}$"):
        parse_statements(text)
