"""The lines that describe an operation's `psp` commands.

A declaration has the words of the command and what no rule can tell. The rest of the line follows from the call: parameters of
the path and required fields of the body are arguments, all others are options of the same name.
"""

from collections.abc import Set
from typing import Final

import msgspec
from msgspec import inspect

from sandbox.http.operation import Operation
from sandbox.http.psp_line import REST, PspLine

_KINDS: Final[dict[type[inspect.Type], str]] = {
    inspect.IntType: ":integer",
    inspect.FloatType: ":number",
    inspect.BoolType: ":flag",
    inspect.ListType: ":list",
    inspect.DictType: ":pairs",
}


def psp_lines(operation: Operation) -> list[str]:
    """Return the lines of an operation, of which the first that can express a call is shown; none if it has no command."""
    lines = operation.psp.splitlines()
    named = {field for line in lines for field in PspLine(line).fields}
    return [" ".join([line, *_rest(operation, named)]) for line in lines]


def _rest(operation: Operation, named: Set[str]) -> list[str]:
    """Return the arguments and options of the fields that no line names."""
    arguments = [(name, "") for name in operation.path_parameters]
    options: list[tuple[str, str]] = []
    for field in [] if REST in named else _fields(operation):
        kind = _kind(inspect.type_info(field.type))
        # An object of several fields needs its own words.
        if kind is not None:
            (arguments if field.required else options).append((field.encode_name, kind))
    options += [(query.name, ":pairs" if query.schema.get("type") == "object" else "") for query in operation.query]
    words = [f"{{{name}{kind}}}" for name, kind in arguments if name not in named]
    return words + [f"--{name.replace('_', '-')} {{{name}{kind}}}" for name, kind in options if name not in named]


def _fields(operation: Operation) -> tuple[msgspec.structs.FieldInfo, ...]:
    body = operation.body
    is_object = operation.receive is None and isinstance(body, type) and issubclass(body, msgspec.Struct)
    return msgspec.structs.fields(body) if is_object else ()


def _kind(info: inspect.Type) -> str | None:
    """Return the kind of a field as a line writes it, or None for an object."""
    while isinstance(info, inspect.Metadata):
        info = info.type
    if isinstance(info, inspect.UnionType):
        kinds = {_kind(option) for option in info.types if not isinstance(option, inspect.NoneType)}
        return kinds.pop() if len(kinds) == 1 else None
    return None if isinstance(info, inspect.StructType) else _KINDS.get(type(info), "")
