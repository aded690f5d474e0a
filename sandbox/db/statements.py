"""Named SQL statements, kept in a `.sql` file beside the module that runs them."""

import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Final

_NAME: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def read_statements(module: str) -> Mapping[str, str]:
    """Return the statements of the `.sql` file beside `module` (pass `__name__`). Raises ValueError as `parse_statements`."""
    package, _, name = module.rpartition(".")
    return parse_statements(files(package).joinpath(f"{name}.sql").read_text("utf-8"))


def parse_statements(text: str) -> Mapping[str, str]:
    """Return statements by name, without comment lines and the semicolon. `-- name: lock` begins the statement `lock`.

    Raises ValueError if a statement has no name, a name occurs twice, or a name has no statement or more than one.
    """
    header, *parts = _NAME.split(text)
    if _statement(header):
        raise ValueError(f"a statement has no name: {_statement(header)}")
    found: dict[str, str] = {}
    for name, part in zip(parts[::2], parts[1::2], strict=True):
        statement = _statement(part)
        if name in found or not statement or ";" in statement:
            raise ValueError(f"{name} must name one statement, once")
        found[name] = statement
    return MappingProxyType(found)


def _statement(text: str) -> str:
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return "\n".join(lines).strip().removesuffix(";")
