"""The columns of a bundle's tables: those in the database, and the JSON format of each PostgreSQL type."""

import base64
import binascii
import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec

from sandbox.domain.clock import parse, render
from sandbox.domain.ids import is_uuid
from sandbox.http.body_errors import NUL
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.worlds.bundles.format import BUNDLED, LEFT_OUT

FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 9000
"""The last year that a clock can show."""
FOREVER: Final = "infinity"
_FOREVER: Final = datetime.max  # noqa: DTZ901 -- what the driver returns and compares with
"""How the driver represents PostgreSQL's infinity, also where a column's other times have a zone."""
_CAN_BE_FOREVER: Final = {("idempotency_keys", "expires_at")}
"""Columns (table, name) whose times can be infinite. In others, such a time could not be compared with a clock's."""
_NUMERIC: Final = re.compile(r"numeric\(([0-9]+),2\)\Z")
_MONEY: Final = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]{2}\Z")

_SQL: Final = read_statements(__name__)


class InvalidValueError(ValueError):
    """A value does not fit its column. The message completes a sentence about it: "must be …"."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. A bundle may leave it out if it `is_optional`: null or its default is then used."""

    name: str
    type: str
    is_optional: bool
    is_key: bool
    can_be_forever: bool


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table's columns without the merchant's id and without secrets, and the columns that order its rows."""

    name: str
    columns: tuple[Column, ...]
    order: tuple[str, ...]


async def read_tables(conn: Connection) -> Mapping[str, TableShape]:
    """Return the tables of a bundle as they are in this database, in the order of BUNDLED."""
    found: dict[str, list[Any]] = {name: [] for name in BUNDLED}
    for record in await conn.fetch(_SQL["columns"], list(BUNDLED)):
        if record["name"] not in LEFT_OUT.get(record["table"], ()):
            found[record["table"]].append(record)
    tables = {}
    for name, records in found.items():
        columns = tuple(
            Column(r["name"], r["type"], r["is_optional"], r["key"] is not None, (name, r["name"]) in _CAN_BE_FOREVER)
            for r in records
        )
        keys = sorted((r for r in records if r["key"] is not None), key=lambda r: r["key"])
        tables[name] = TableShape(name, columns, tuple(r["name"] for r in keys))
    return tables


# ---- From the database to JSON


def render_time(moment: datetime) -> str:
    """Format a time as RFC 3339 in UTC, with microseconds if it has any."""
    if moment == _FOREVER:
        return FOREVER
    return render(moment) if moment.microsecond % 1000 == 0 else moment.astimezone(UTC).isoformat()[:-6] + "Z"


def _render_real(value: float) -> float:
    """Return the shortest number that is the same in single precision."""
    candidates = (float(f"{value:.{digits}g}") for digits in (6, 7, 8))
    return next((short for short in candidates if struct.pack("f", short) == struct.pack("f", value)), value)


_RENDERERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "uuid": str,
    "timestamp with time zone": render_time,
    "jsonb": lambda text: msgspec.Raw(text.encode()),
    "bytea": lambda value: base64.b64encode(value).decode(),
    "real": _render_real,
}


def renderer(column: Column) -> Callable[[Any], Any] | None:
    """Return the function that turns a column's values, except null, into JSON; None if they are JSON already."""
    return _RENDERERS.get(column.type)


# ---- From JSON to the database


def read_value(column: Column, raw: msgspec.Raw) -> Any:
    """Return the value that the database driver takes for a column. Raises InvalidValueError."""
    if bytes(raw) == b"null":
        if column.is_optional:
            return None
        raise InvalidValueError("must not be null")
    if column.type.startswith("numeric"):
        return _money(column, raw)
    if column.can_be_forever and _text(raw) == FOREVER:
        return _FOREVER
    return _READERS[column.type](raw)


def read_time(text: str) -> datetime:
    """Return a time from FIRST_YEAR to LAST_YEAR. Raises InvalidValueError."""
    try:
        moment = parse(text)
    except (ValueError, OverflowError):
        raise InvalidValueError("must be an RFC 3339 time, such as 2026-01-31T12:00:00.000Z") from None
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise InvalidValueError(f"must be a time from {FIRST_YEAR} to {LAST_YEAR}")
    return moment


def _text(raw: msgspec.Raw) -> str:
    text: str = _decoded(raw, str, "a string")
    if "\0" in text:
        raise InvalidValueError(NUL)
    return text


def _decoded(raw: msgspec.Raw, kind: Any, what: str) -> Any:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidValueError(f"must be {what}") from None


def _uuid(raw: msgspec.Raw) -> UUID:
    text = _text(raw)
    if not is_uuid(text):
        raise InvalidValueError("must be a UUID in lower case")
    return UUID(text)


def _money(column: Column, raw: msgspec.Raw) -> Decimal:
    digits = _NUMERIC.match(column.type)
    assert digits is not None, f"bundles cannot contain {column.type}"
    text = _text(raw)
    if len(text) > 40 or not _MONEY.match(text) or len(text.removeprefix("-")) - 1 > int(digits[1]):
        raise InvalidValueError(f"must be a string with two decimal places and at most {digits[1]} digits")
    return Decimal(text)


def _integer(bits: int) -> Callable[[msgspec.Raw], int]:
    def read(raw: msgspec.Raw) -> int:
        value: int = _decoded(raw, int, "a whole number")
        if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
            raise InvalidValueError(f"must be a whole number of {bits} bits")
        return value

    return read


def _float(raw: msgspec.Raw) -> float:
    value: float = _decoded(raw, float, "a number")
    if not math.isfinite(value) or abs(value) > 1e30:
        raise InvalidValueError("must be a number between -1e30 and 1e30")
    return value


def _bytes(raw: msgspec.Raw) -> bytes:
    try:
        return base64.b64decode(_text(raw), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidValueError("must be base64") from None


def _json(raw: msgspec.Raw) -> str:
    value = _decoded(raw, Any, "JSON")
    if _contains_nul(value):
        raise InvalidValueError(NUL)
    return bytes(raw).decode()


def _contains_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any("\0" in name or _contains_nul(item) for name, item in value.items())
    if isinstance(value, list):
        return any(map(_contains_nul, value))
    return isinstance(value, str) and "\0" in value


def _texts(raw: msgspec.Raw) -> list[str]:
    texts: list[str] = _decoded(raw, list[str], "a list of strings")
    if any("\0" in text for text in texts):
        raise InvalidValueError(NUL)
    return texts


_READERS: Final[Mapping[str, Callable[[msgspec.Raw], Any]]] = {
    "uuid": _uuid,
    "text": _text,
    "integer": _integer(32),
    "bigint": _integer(64),
    "boolean": lambda raw: _decoded(raw, bool, "true or false"),
    "real": _float,
    "double precision": _float,
    "timestamp with time zone": lambda raw: read_time(_text(raw)),
    "jsonb": _json,
    "bytea": _bytes,
    "text[]": _texts,
}
"""PostgreSQL's type → its reader. A test compares them with the types of all columns."""
