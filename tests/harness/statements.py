"""Every SQL statement of the product, found in its modules, so that none can be forgotten."""

import ast
import functools
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import ipn
import sandbox
import worker

_SQL = re.compile(r"\s*(SELECT|WITH|INSERT INTO|UPDATE|DELETE FROM|MERGE)\s")
_PACKAGES = (sandbox, worker, ipn)
# They serve no request: migrations, the tools around the product, and modules that do something when they are imported.
_OUTSIDE = re.compile(r"\.(migrations|runtime|bench|cli)\b|__main__$|\.db\.migrate$")


def modules() -> Iterator[ModuleType]:
    """All modules that may hold statements."""
    for package in _PACKAGES:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not _OUTSIDE.search(found.name):
                yield importlib.import_module(found.name)


@functools.cache
def constants() -> dict[str, str]:
    """The statements that modules hold as constants, by `module.NAME`, or `module.NAME[key]` in a dict."""
    found: dict[str, str] = {}
    for module in modules():
        for name, value in vars(module).items():
            items = value.items() if isinstance(value, dict) else [(None, value)]
            for key, text in items:
                if isinstance(text, str) and _SQL.match(text) and text not in found.values():
                    found[f"{module.__name__}.{name}" + ("" if key is None else f"[{key}]")] = text
    return found


@functools.cache
def inline() -> dict[str, str]:
    """The statements that stand in the bodies of functions, by `module.function: beginning`.

    Of one that is put together with expressions there is only what stands before the first of them, and `{`.
    """
    found: dict[str, str] = {}
    for module in modules():
        tree = ast.parse(Path(module.__file__ or "").read_text("utf-8"))
        own: dict[str, str] = {}
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for text in _texts(function):
                    # A function within another one is walked through with it first.
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
    elif not isinstance(node, ast.Compare):  # what a statement's outcome is compared with is no statement
        for part in ast.iter_child_nodes(node):
            yield from _texts(part)
