"""Lists: limit and cursor in, a page out. A cursor is the last id of a page, so page N costs what page 1 costs."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from sandbox.domain import clock
from sandbox.domain.body_errors import FieldProblem
from sandbox.domain.errors import Problem, invalid
from sandbox.domain.ids import LARGEST_ID, first_id_at, is_uuid

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100


class Page(msgspec.Struct):
    """One page of a list, newest first."""

    data: list[Any]
    has_more: bool
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class PageWindow:
    """Which part of a list is asked for: `limit` items whose ids are below `before` and not below `since`.

    `suffix` is what of the cursor stands behind the id, for lists with several items an id.
    """

    limit: int
    before: str
    since: str
    suffix: str = ""


def window(query: Mapping[str, str]) -> PageWindow:
    """Read `limit`, `cursor`, `created_from` (inclusive) and `created_to` (exclusive) of a query that was checked."""
    before, suffix = _read_cursor(query["cursor"]) if "cursor" in query else (LARGEST_ID, "")
    since = first_id_at(_time(query, "created_from"))
    if "created_to" in query:
        before = min(before, first_id_at(_time(query, "created_to")))
    return PageWindow(int(query.get("limit", DEFAULT_LIMIT)), before, since, suffix)


def cursor_errors(query: Mapping[str, str]) -> list[FieldProblem]:
    """What is wrong with a query's cursor, which its schema cannot say."""
    try:
        if "cursor" in query:
            _read_cursor(query["cursor"])
    except Problem as problem:
        return list(problem.errors)
    return []


def page(items: Sequence[Any], limit: int, cursor_of: Sequence[str]) -> Page:
    """A page of at most `limit` items; one more item than that says that there are more.

    `cursor_of[i]` is the id (and suffix) that item i stands at.
    """
    more = len(items) > limit
    return Page(list(items[:limit]), more, _write_cursor(cursor_of[limit - 1]) if more else None)


def selected(query: Mapping[str, str], name: str, choices: Sequence[str]) -> list[str]:
    """The values to look for: those given, comma-separated, or all."""
    return list(dict.fromkeys(query[name].split(","))) if name in query else list(choices)


def _time(query: Mapping[str, str], name: str) -> int:
    # An unescaped + in a query means a space.
    return clock.milliseconds(clock.parse(query[name].replace(" ", "+"))) if name in query else 0


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
