"""Make an object of the API from what is stored. Pure."""

from datetime import datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

import msgspec

from sandbox.domain.clock import render

T = TypeVar("T", bound=msgspec.Struct)


class Record(Protocol):
    """A row: the database's, or a mapping."""

    def __getitem__(self, column: str, /) -> Any: ...


def shown(kind: type[T], record: Record, **fields: Any) -> T:
    """Return a struct with these fields; all others are the record's columns of the same names, with times and ids as text.

    Raises KeyError if the record lacks a column.
    """
    return kind(**{name: _as_text(record[name]) for name in kind.__struct_fields__ if name not in fields}, **fields)


def _as_text(value: Any) -> Any:
    if isinstance(value, datetime):
        return render(value)
    return str(value) if isinstance(value, UUID) else value
