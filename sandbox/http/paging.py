"""Cursor pagination. A cursor encodes the last id of a page, so reading page N costs the same as page 1."""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import msgspec

from sandbox.domain import clock
from sandbox.domain.errors import Problem, invalid
from sandbox.domain.ids import MAX_ID, first_id_at, is_uuid
from sandbox.http.body_errors import FieldProblem

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100
MAX_SCANNED: Final = 5000
"""Maximum number of items that one page of a search reads. They take about five milliseconds."""
_SECOND_PART: Final = ":contains"
"""The suffix of a cursor in the second part of a search."""


class Page(msgspec.Struct):
    """One page of a list, newest first."""

    data: list[Any]
    has_more: bool
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class PageWindow:
    """The requested part of a list: up to `limit` items with ids in [`since`, `before`).

    `suffix` is the part of the cursor after the id, for lists that have several items per id, or two parts. `until` is the end
    of the whole list, whatever the cursor: all its pages have ids below it.
    """

    limit: int
    before: str
    since: str
    suffix: str = ""
    until: str = MAX_ID


def window(query: Mapping[str, str]) -> PageWindow:
    """Return the window for a checked query's `limit`, `cursor`, `created_from` (inclusive) and `created_to` (exclusive)."""
    before, suffix = _read_cursor(query["cursor"]) if "cursor" in query else (MAX_ID, "")
    since = first_id_at(_milliseconds(query, "created_from"))
    until = first_id_at(_milliseconds(query, "created_to")) if "created_to" in query else MAX_ID
    return PageWindow(int(query.get("limit", DEFAULT_LIMIT)), min(before, until), since, suffix, until)


def cursor_errors(query: Mapping[str, str]) -> list[FieldProblem]:
    """Return the errors in a query's cursor that its schema cannot express."""
    try:
        if "cursor" in query:
            _read_cursor(query["cursor"])
    except Problem as problem:
        return list(problem.errors)
    return []


def page(items: Sequence[Any], limit: int, cursor_of: Sequence[str]) -> Page:
    """Return a page of at most `limit` items. If `items` has one more, the page has a next page.

    `cursor_of[i]` is the id (and suffix) of item i.
    """
    has_more = len(items) > limit
    return Page(list(items[:limit]), has_more, _write_cursor(cursor_of[limit - 1]) if has_more else None)


def page_until(items: Sequence[Any], position: str) -> Page:
    """Return a page that ends early, at the id `position`, because it has read enough. The next page continues there."""
    return Page(list(items), True, _write_cursor(position))


def is_second_part(window: PageWindow) -> bool:
    """Return whether the page begins in the second part of a search; see `two_part_page`."""
    return window.suffix == _SECOND_PART


def two_part_page(first: Sequence[Any], second: Sequence[Any], limit: int, end: str | None) -> Page:
    """Return a page of a search: the remaining items of its first part, then items of its second part, each newest first. `end`
    is the id at which reading of the second part stopped; None if it was read to its end.
    """
    items = [*first, *second]
    if len(items) > limit or end is None:
        return page(items, limit, [*(item.id for item in first), *(item.id + _SECOND_PART for item in second)])
    return page_until(items, end + _SECOND_PART)


def newest_first(items: Iterable[Any], limit: int) -> list[Any]:
    """Return each item once, newest first, and at most `limit` of them."""
    by_id = {item.id: item for item in items}
    return [by_id[id_] for id_ in sorted(by_id, reverse=True)[:limit]]


def after(id_: str) -> str:
    """Return the id that follows `id_`: the exclusive end of a range that includes `id_`."""
    return str(UUID(int=min(UUID(id_).int + 1, UUID(MAX_ID).int)))


def selected(query: Mapping[str, str], name: str, choices: Sequence[str]) -> list[str]:
    """Return the values of a comma-separated query parameter, or all choices if it was not given."""
    return list(dict.fromkeys(query[name].split(","))) if name in query else list(choices)


def _milliseconds(query: Mapping[str, str], name: str) -> int:
    # An unescaped + in a query is decoded as a space.
    return clock.milliseconds(clock.parse(query[name].replace(" ", "+"))) if name in query else 0


def _write_cursor(position: str) -> str:
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[str, str]:
    try:
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
        if is_uuid(text[:36]) and text[36:] in ("", ":debit", ":credit", _SECOND_PART) and _write_cursor(text) == cursor:
            return text[:36], text[36:]
    except (ValueError, binascii.Error):
        pass
    raise invalid("cursor", "must be the next_cursor of a page of this list")
