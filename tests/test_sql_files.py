"""Each statement in a `.sql` file belongs to the module beside the file, which loads it."""

import re
from pathlib import Path

import pytest

from sandbox.infrastructure.db.statements import parse_statements, read_statements

ROOT = Path(__file__).parent.parent
# Not the benchmarks' scripts, which no module loads, the schema, or the database functions, which are installed.
_ALL = [path for folder in ("sandbox", "worker", "ipn") for path in sorted((ROOT / folder).rglob("*.sql"))]
FILES = [
    path
    for path in _ALL
    if not {"benches", "migrations"} & set(path.parts) and "CREATE OR REPLACE FUNCTION" not in path.read_text()
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_module_beside_a_file_uses_its_statements_and_no_others(path: Path) -> None:
    """A name that is in no file would only be noticed when the statement runs."""
    used = re.findall(r'(?:_SQL|read_statements\(.*\))\["(\w+)"\]', path.with_suffix(".py").read_text())
    assert set(used) == set(parse_statements(path.read_text()))


def test_statements_are_read_by_name_without_comments() -> None:
    text = "-- Header\n\n-- name: first\n-- Why.\nSELECT 1\n    -- Inside.\n    + 2;\n\n-- name: second\nSELECT 3;\n"
    assert parse_statements(text) == {"first": "SELECT 1\n    + 2", "second": "SELECT 3"}
    assert read_statements("sandbox.unit_of_work.users")["credit"].startswith("INSERT INTO users")


def test_a_statement_includes_the_parts_of_its_file_and_of_its_module() -> None:
    text = "-- part: key\n-- Why.\na = {value}\n\n-- name: first\nSELECT '{}', '{other}' WHERE {key};\n"
    assert parse_statements(text, value="$1") == {"first": "SELECT '{}', '{other}' WHERE a = $1"}


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
