"""Lists: limit and cursor in, a page out. A cursor is the last id of a page, so page N costs what page 1 costs."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.domain import clock
from sandbox.domain.errors import Problem, all_invalid, invalid
from sandbox.domain.ids import LARGEST_ID, first_id_at, is_uuid
from sandbox.domain.query_errors import find_query_errors

if TYPE_CHECKING:
    # Services page their lists, in workers and commands as well, which need not load a web framework for it.
    from sandbox.http.guard import HttpRequest

_NUMBER: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?\Z")
DEFAULT_LIMIT: Final = 20
LARGEST_LIMIT: Final = 100


class Page(msgspec.Struct):
    """One page of a list, newest first."""

    data: list[Any]
    has_more: bool
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a list is asked for: `limit` items whose ids are below `before` and not below `since`.

    `suffix` is what of the cursor stands behind the id, for lists with several items an id.
    """

    limit: int
    before: str
    since: str
    suffix: str = ""


def query(request: "HttpRequest", allowed: Sequence[str]) -> dict[str, str]:
    """The query's parameters, as their operation documents them.

    Raises VALIDATION_ERROR with every one that is unknown, given twice, or not what its schema says.
    """
    operation = request.scope["route_handler"].opt.get("operation")
    schemas = {} if operation is None else {parameter.name: parameter.schema for parameter in operation.query}
    faults, found = find_query_errors(request.query_params.multi_items(), allowed, schemas)
    if "cursor" in found:
        try:
            _read_cursor(found["cursor"])
        except Problem as problem:
            faults += problem.errors
    if faults:
        raise all_invalid(faults)
    return found


def window(params: Mapping[str, str]) -> Window:
    """Read `limit`, `cursor`, `created_from` (inclusive) and `created_to` (exclusive). Raises VALIDATION_ERROR."""
    raw = params.get("limit", str(DEFAULT_LIMIT))
    if not (raw.isascii() and raw.isdigit() and len(raw) <= 3 and 1 <= int(raw) <= LARGEST_LIMIT):
        raise invalid("limit", f"must be a whole number from 1 to {LARGEST_LIMIT}")
    before, suffix = _read_cursor(params["cursor"]) if "cursor" in params else (LARGEST_ID, "")
    since = first_id_at(_time(params, "created_from"))
    if "created_to" in params:
        before = min(before, first_id_at(_time(params, "created_to")))
    return Window(int(raw), before, since, suffix)


def page(items: Sequence[Any], limit: int, cursor_of: Sequence[str]) -> Page:
    """A page of at most `limit` items; one more item than that says that there are more.

    `cursor_of[i]` is the id (and suffix) that item i stands at.
    """
    more = len(items) > limit
    return Page(list(items[:limit]), more, _write_cursor(cursor_of[limit - 1]) if more else None)


def choice(params: Mapping[str, str], name: str, choices: Sequence[str]) -> list[str]:
    """The values to look for: the one given, or all. Raises VALIDATION_ERROR."""
    if name not in params:
        return list(choices)
    if params[name] not in choices:
        raise invalid(name, f"must be one of {', '.join(choices)}")
    return [params[name]]


def seconds(params: Mapping[str, str], name: str, default: float, longest: float) -> float:
    """A number of seconds from 0 to `longest`. Raises VALIDATION_ERROR."""
    raw = params.get(name, str(default))
    if not _NUMBER.match(raw) or not 0 <= float(raw) <= longest:
        raise invalid(name, f"must be a number of seconds from 0 to {longest:g}")
    return float(raw)


def uuid_param(params: Mapping[str, str], name: str) -> str | None:
    """A UUID or None. Raises VALIDATION_ERROR."""
    value = params.get(name)
    if value is not None and not is_uuid(value):
        raise invalid(name, "must be an id: a UUID in lower case")
    return value


def _time(params: Mapping[str, str], name: str) -> int:
    if name not in params:
        return 0
    try:
        return clock.milliseconds(_parse(params[name]))
    except (ValueError, OverflowError):
        raise invalid(name, "must be an RFC 3339 time with an offset, such as 2026-01-31T12:00:00.000Z") from None


def _parse(text: str) -> datetime:
    # An unescaped + in a query means a space.
    return clock.parse(text.replace(" ", "+"))


def _write_cursor(position: str) -> str:
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[str, str]:
    try:
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
        if is_uuid(text[:36]) and text[36:] in ("", ":debit", ":credit") and _write_cursor(text) == cursor:
            return text[:36], text[36:]
    except (ValueError, binascii.Error):
        pass
    raise invalid("cursor", "must be the next_cursor of a page of this list")
