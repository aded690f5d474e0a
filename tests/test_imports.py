"""Imports go downward only, and the pure core knows no I/O, no clock and no randomness."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for folder in ("sandbox", "worker", "ipn", "seeds") for path in (ROOT / folder).rglob("*.py"))
PURE = [
    *(f"domain/{path.stem}" for path in sorted((ROOT / "sandbox" / "domain").glob("*.py"))),
    "payouts/requests", "scenarios/rules", "faults/requests", "users/requests", "sales/requests", "webhooks/capacity",
    "unit_of_work/in_flight",
]  # fmt: skip
IMPURE = {
    "asyncio", "asyncpg", "piccolo", "redis", "arq", "aiohttp", "httpx", "litestar", "socket", "os", "random", "secrets",
    "time", "subprocess", "threading", "structlog",
}  # fmt: skip
STORAGE = {"sandbox.db", "sandbox.unit_of_work.store", "sandbox.unit_of_work.ledger", "sandbox.webhooks.outbox"}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, for its own use at run time."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("name", PURE)
def test_the_pure_core_does_no_io(name: str) -> None:
    path = ROOT / "sandbox" / f"{name}.py"
    found = set(imports(path))
    assert not {module.partition(".")[0] for module in found} & IMPURE
    assert not {module for module in found for storage in STORAGE if module.startswith(storage)}
    text = path.read_text()
    tree = ast.parse(text)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [call for call in calls if call.endswith((".now", ".utcnow", ".today")) and call.startswith("datetime")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downward_only(path: Path) -> None:
    found = set(imports(path))
    inside = path.relative_to(ROOT)
    if inside.parts[0] == "sandbox":
        outer = {module for module in found if module.partition(".")[0] in {"worker", "ipn", "seeds", "tests"}}
        assert not outer, "nothing under sandbox/ imports what is above it"
    composes = inside.as_posix() in ("sandbox/server/app.py",) or inside.parts[:2] in (("sandbox", "cli"), ("sandbox", "http"))
    if not composes:
        edges = {m for m in found if m.startswith("sandbox.") and m.endswith((".api", "_api"))}
        assert not edges, "edges import no other edge; app.py composes"


def test_only_one_file_writes_balances_and_transfers() -> None:
    def writes(path: Path) -> bool:
        text = path.read_text()
        return any(
            f"{verb} {table}" in text
            for verb in ("INSERT INTO", "UPDATE", "DELETE FROM")
            for table in ("accounts", "transfers")
        )

    found = [path.relative_to(ROOT).as_posix() for path in FILES if "migrations" not in path.parts and writes(path)]
    assert found == ["sandbox/unit_of_work/ledger.py"]
