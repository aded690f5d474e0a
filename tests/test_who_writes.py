"""Only the unit of work opens write transactions. Code with a plain connection only reads."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import statements
from tests.harness.python_source import parse_python

ROOT = Path(__file__).parent.parent
UNIT_OF_WORK = ROOT / "sandbox" / "unit_of_work"
OTHER_FILES = [
    path
    for folder in ("sandbox", "worker", "ipn", "seeds")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if UNIT_OF_WORK not in path.parents and "benches" not in path.parts and "migrations" not in path.parts
]
"""Every source file outside the unit of work, except migrations and the benchmarks, which run their own statements."""
_WRITES = re.compile(r"\b(INSERT INTO|UPDATE \w+ SET|UPDATE \w+ \w+ SET|DELETE FROM|FOR NO KEY UPDATE|FOR UPDATE)\b")


def blocks_of(tree: ast.AST, opener: str) -> Iterator[ast.AsyncWith]:
    """Yield every `async with` block that calls the function `opener`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncWith):
            calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
            if any(ast.unparse(call.func) == opener for call in calls):
                yield node


def writes_in(path: Path, tree: ast.AST) -> set[str]:
    """Return the write statements that run on a plain connection, as the name of a constant or as SQL text."""
    constants = {name.rpartition(".")[2]: text for name, text in statements.constants().items() if _is_defined_in(name, path)}
    found = set()
    for block in blocks_of(tree, "connection"):
        for node in ast.walk(block):
            name = _name_of(node)
            if name is not None and _WRITES.search(constants.get(name, "")):
                found.add(name)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _WRITES.search(node.value):
                found.add(node.value)
    return found


def _name_of(node: ast.AST) -> str | None:
    """Return the name of a statement: of a constant, or in the module's SQL file (`_SQL["name"]`)."""
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "_SQL" and isinstance(node.slice, ast.Constant):
        return str(node.slice.value)
    return node.id if isinstance(node, ast.Name) and node.id.isupper() else None


def _is_defined_in(name: str, path: Path) -> bool:
    return name.rpartition(".")[0] == ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", OTHER_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_unit_of_work_opens_write_transactions(path: Path) -> None:
    tree = parse_python(path)
    if path != ROOT / "sandbox" / "infrastructure" / "db" / "engine.py":
        imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names}
        assert "transaction" not in imported
    assert writes_in(path, tree) == set()


def test_the_checker_finds_a_write_on_a_plain_connection() -> None:
    path = ROOT / "worker" / "sweep.py"
    source = "async def write():\n    async with db_errors_as_503(), connection(id_) as conn:\n        await conn.execute({})\n"
    assert writes_in(path, parse_python(source.format("_PURGE"))) == {"_PURGE"}
    assert writes_in(path, parse_python(source.format("'DELETE FROM payouts'"))) == {"DELETE FROM payouts"}
    assert writes_in(path, parse_python(source.format("_DUE"))) == set()
    path = ROOT / "sandbox" / "users" / "aggregator" / "store.py"
    assert writes_in(path, parse_python(source.format('_SQL["move"]'))) == {"move"}
    assert writes_in(path, parse_python(source.format('_SQL["recent"]'))) == set()


def test_only_replacing_or_deleting_a_world_has_the_rights_of_the_databases_owner() -> None:
    callers = {
        str(path.relative_to(ROOT))
        for path in OTHER_FILES
        for node in ast.walk(parse_python(path))
        if isinstance(node, ast.keyword) and node.arg == "as_database_owner"
    }
    assert callers == {
        "sandbox/worlds/merchants/service.py",
        "sandbox/worlds/bundles/service.py",
        "sandbox/worlds/snapshots/service.py",
    }
