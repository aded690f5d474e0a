"""Builds results from JSON: frozen dataclasses, Decimal, and datetime in UTC.

A newer sandbox may send more than this client knows. Unknown fields are ignored, and unknown values of a Literal are kept.
"""

import dataclasses
import functools
import types
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
_Decode = Callable[[Any], Any]


def decode(kind: type[T], value: Any) -> T:
    """Return parsed JSON as a value of this type. Raises ValueError, TypeError or KeyError if it is something else."""
    return cast(T, _decoder(cast(Any, kind))(value))


@functools.cache
def _decoder(kind: Any) -> _Decode:
    """Return the function that builds this type. Compiled once per type."""
    origin = get_origin(kind)
    if origin is list:
        item = _decoder(get_args(kind)[0])
        return lambda values: [item(value) for value in values]
    if origin is dict:
        member = _decoder(get_args(kind)[1])
        return lambda values: {name: member(value) for name, value in values.items()}
    if origin in (types.UnionType, Union):
        return _union([choice for choice in get_args(kind) if choice is not type(None)])
    if dataclasses.is_dataclass(kind):
        return _record(kind)
    if kind is Decimal:
        return Decimal
    if kind is datetime:
        return _time
    return float if kind is float else _unchanged


def _record(kind: Any) -> _Decode:
    hints = get_type_hints(kind)
    required: list[tuple[str, str, _Decode]] = []
    optional: list[tuple[str, str, _Decode]] = []
    for field in dataclasses.fields(kind):
        entry = (field.name, field.metadata.get("name", field.name), _decoder(hints[field.name]))
        (required if field.default is dataclasses.MISSING else optional).append(entry)

    def build(value: Any) -> Any:
        found = {name: read(value[key]) for name, key, read in required}
        for name, key, read in optional:
            if key in value:
                found[name] = read(value[key])
        return kind(**found)

    return build


def _union(choices: list[Any]) -> _Decode:
    """Build the first dataclass whose fields an object has. Null and an object of an unknown kind stay as they are."""
    records = [(_decoder(cast(Any, kind)), *_signature(kind)) for kind in choices if dataclasses.is_dataclass(kind)]
    if not records:
        only = _decoder(choices[0]) if len(choices) == 1 else _unchanged
        return lambda value: None if value is None else only(value)
    if len(records) == len(choices) == 1:
        only = records[0][0]
        return lambda value: None if value is None else only(value)

    def build(value: Any) -> Any:
        if isinstance(value, dict):
            for read, names, tags in records:
                if names <= value.keys() and all(value[name] in known for name, known in tags):
                    return read(value)
        return value

    return build


def _signature(kind: Any) -> tuple[set[str], list[tuple[str, tuple[Any, ...]]]]:
    """Return the names of a dataclass's required fields, and the values of those that can have only one."""
    hints = get_type_hints(kind)
    names = {
        field.metadata.get("name", field.name): hints[field.name]
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING
    }
    tags = [(name, get_args(hint)) for name, hint in names.items() if get_origin(hint) is Literal and len(get_args(hint)) == 1]
    return set(names), tags


def _time(value: str) -> datetime:
    return datetime.fromisoformat(value).astimezone(UTC)


def _unchanged(value: Any) -> Any:
    return value
