"""Find every SQL statement and every Piccolo query in the product's modules, so that tests cover them all."""

import ast
import functools
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, get_origin

from piccolo.query import Query
from piccolo.query.proxy import Proxy
from piccolo.table import Table

import ipn
import sandbox
import worker
from sandbox.infrastructure.db.engine import ENGINE
from tests.harness.python_source import parse_python

_SQL = re.compile(r"\s*(SELECT|WITH|INSERT INTO|UPDATE|DELETE FROM|MERGE)\s")
TEMPLATES = {
    "ipn.callback.find",
    "ipn.callback.find_of_merchant",
    "sandbox.users.sales.payments.open",
    "sandbox.users.sales.payments.record_attempts",
    "sandbox.worlds.audit.checks.chain",
    "sandbox.worlds.audit.checks.references",
}
"""Statements that modules fill in before they run them. What results is in a constant."""
_QUERY_METHODS = ("select", "objects", "count", "exists", "update", "delete", "raw")
_PACKAGES = (sandbox, worker, ipn)
# Not covered: migrations, command-line tools, modules that run code when imported, and reads of Citus's catalog.
_NOT_COVERED = re.compile(
    r"\.(migrations|runtime|cli)\b|__main__$|\.db\.(migrate|distributed\.(cluster|distribut\w+|shard_schema))$"
)


def modules() -> Iterator[ModuleType]:
    """Import and yield every module that may contain statements."""
    for package in _PACKAGES:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not _NOT_COVERED.search(found.name):
                yield importlib.import_module(found.name)


@functools.cache
def tables() -> list[type[Table]]:
    """Return all Piccolo table classes, each once."""
    found = [value for module in modules() for value in vars(module).values() if isinstance(value, type)]
    return list(dict.fromkeys(one for one in found if issubclass(one, Table) and one is not Table and one._meta._db is ENGINE))


@functools.cache
def constants() -> dict[str, str]:
    """Return the statements of modules' SQL files, keyed by `module.name`, and those in other constants, keyed by
    `module.NAME`, or by `module.NAME[key]` for a dict.
    """
    of_files = {f"{m.__name__}.{name}": text for m in modules() for name, text in getattr(m, "_SQL", {}).items()}
    found: dict[str, str] = {}
    for module in modules():
        for name, value in vars(module).items():
            items = value.items() if isinstance(value, dict) else [(None, value)]
            for key, text in items:
                is_new = text not in (*of_files.values(), *found.values())
                if isinstance(text, str) and _SQL.match(text) and is_new:
                    found[f"{module.__name__}.{name}" + ("" if key is None else f"[{key}]")] = text
    return found | {name: text for name, text in of_files.items() if name not in TEMPLATES}


@functools.cache
def query_builders() -> dict[str, Callable[..., Query[Any, Any]]]:
    """Return the functions that return a Piccolo query without running it, keyed by `module.function`."""
    return {
        f"{module.__name__}.{name}": value
        for module in modules()
        for name, value in vars(module).items()
        if isinstance(value, FunctionType) and value.__module__ == module.__name__ and _returns_query(value)
    }


def _returns_query(function: FunctionType) -> bool:
    returned = function.__annotations__.get("return")
    returned = get_origin(returned) or returned
    return isinstance(returned, type) and issubclass(returned, (Query, Proxy))


def queries_elsewhere() -> list[str]:
    """Return the places (`module:line`) that build a Piccolo query outside the functions of `query_builders`."""
    found = []
    for module in modules():
        tree = parse_python(Path(module.__file__ or ""))
        in_builders = {
            call
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and f"{module.__name__}.{node.name}" in query_builders()
            for call in ast.walk(node)
        }
        found += [
            f"{module.__name__}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and node not in in_builders
            and node.attr in _QUERY_METHODS
            and _is_table(node.value, module)
        ]
    return found


def _is_table(node: ast.expr, module: ModuleType) -> bool:
    value = getattr(module, node.id, None) if isinstance(node, ast.Name) else None
    return isinstance(value, type) and issubclass(value, Table)


@functools.cache
def inline() -> dict[str, str]:
    """Return the statements in function bodies, keyed by `module.function: first characters`.

    An f-string is represented by the text before its first expression, followed by `{`.
    """
    found: dict[str, str] = {}
    for module in modules():
        tree = parse_python(Path(module.__file__ or ""))
        own: dict[str, str] = {}
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for text in _texts(function):
                    # A nested function is also visited as part of its outer function.
                    if _SQL.match(text) and text not in own.values():
                        own[f"{module.__name__}.{function.name}: {' '.join(text.split())[:60]}"] = text
        found |= own
    return found


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        if node.values and isinstance(node.values[0], ast.Constant):
            yield str(node.values[0].value) + "{"
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif not isinstance(node, ast.Compare):  # a string in a comparison is not a statement
        for part in ast.iter_child_nodes(node):
            yield from _texts(part)
