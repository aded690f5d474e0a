"""Parse a page of a vendor's feed: check that it is complete, then read its valid and invalid rows. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final, Literal

import msgspec

from sandbox.domain import clock
from sandbox.domain.money import InvalidAmountError, parse_amount, parse_signed_amount
from sandbox.http.body_errors import find_errors, parse_tree

MAX_ID_LENGTH: Final = 200
MAX_USER_ID_LENGTH: Final = 64
MAX_RAW_LENGTH: Final = 10_000
_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 9000
"""Years outside this range are not real times, and adding to them could overflow."""
_MAX_REASON_LENGTH: Final = 300


class UnreadablePageError(ValueError):
    """The response is not a page of a feed, or is incomplete. The message describes the error."""


@dataclass(frozen=True, slots=True)
class VendorRow:
    """One transaction of a vendor's user. A negative `payout` or `paid_out` reverses an earlier one."""

    vendor_id: str
    user_id: str
    type: str
    amount: Decimal
    created_at: datetime


@dataclass(frozen=True, slots=True)
class BadRow:
    """An invalid row: its raw text, the reason, and its id if that is valid."""

    raw: str
    reason: str
    vendor_id: str | None


@dataclass(frozen=True, slots=True)
class RowsOfPage:
    """The contents of a page."""

    rows: Sequence[VendorRow]
    bad: Sequence[BadRow]
    total_pages: int


class _Meta(msgspec.Struct, rename="camel"):
    total_pages: Annotated[int, msgspec.Meta(ge=0)]
    total_items: Annotated[int, msgspec.Meta(ge=0)] | None = None
    items_per_page: Annotated[int, msgspec.Meta(ge=1)] | None = None
    item_count: Annotated[int, msgspec.Meta(ge=0)] | None = None
    current_page: int | None = None


class _Page(msgspec.Struct):
    items: list[msgspec.Raw]
    meta: _Meta


class _Row(msgspec.Struct, rename="camel"):
    id: str | int
    user_id: str | int
    created_at: str
    type: Literal["earned", "spent", "payout", "paid_out"]
    amount: msgspec.Raw


class _Id(msgspec.Struct):
    id: str | int


_page: Final = msgspec.json.Decoder(_Page)
_row: Final = msgspec.json.Decoder(_Row)
_id: Final = msgspec.json.Decoder(_Id)


def read_page(body: bytes, requested: int) -> RowsOfPage:
    """Return the rows of the page with the number `requested`. Raises UnreadablePageError.

    A page with missing rows is refused completely: continuing with the next page would skip those rows for good.
    """
    try:
        page = _page.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadablePageError(f"the response is not a page of transactions: {error}"[:_MAX_REASON_LENGTH]) from None
    meta, count = page.meta, len(page.items)
    if meta.current_page not in (None, requested) and requested <= meta.total_pages:
        raise UnreadablePageError(f"page {requested} was requested, but page {meta.current_page} was returned")
    expected = meta.item_count or 0
    if meta.total_items is not None and meta.items_per_page is not None:
        rest = meta.total_items - (requested - 1) * meta.items_per_page
        expected = max(expected, min(meta.items_per_page, rest))
    elif requested < meta.total_pages:
        expected = max(expected, 1)
    if count < expected:
        raise UnreadablePageError(f"the page has {count} rows instead of {expected}")
    rows: list[VendorRow] = []
    bad: list[BadRow] = []
    for item in page.items:
        raw = bytes(item)
        try:
            rows.append(read_row(raw))
        except ValueError as error:
            # Replace characters that PostgreSQL's text cannot store. Only rows that are not valid JSON contain them.
            text = raw.decode("utf-8", "replace").replace("\0", "\ufffd")
            cut = f"cut after {MAX_RAW_LENGTH} characters; " if len(text) > MAX_RAW_LENGTH else ""
            bad.append(BadRow(text[:MAX_RAW_LENGTH], (cut + str(error))[:_MAX_REASON_LENGTH], _id_of(raw)))
    return RowsOfPage(rows, bad, meta.total_pages)


def read_row(raw: bytes) -> VendorRow:
    """Parse one row's JSON. Raises ValueError, which describes the error."""
    try:
        row = _row.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(_errors(raw) or str(error)) from None
    try:
        # Only payouts can be reversed; earnings and spending are never negative.
        parse = parse_signed_amount if row.type in ("payout", "paid_out") else parse_amount
        amount = parse(bytes(row.amount))
    except InvalidAmountError as error:
        raise ValueError(f"amount {error}") from None
    try:
        created_at = clock.parse(row.created_at)
    except (ValueError, OverflowError):
        raise ValueError("createdAt must be an RFC 3339 time with an offset") from None
    if not _FIRST_YEAR <= created_at.year <= _LAST_YEAR:
        raise ValueError(f"createdAt must be from {_FIRST_YEAR} to {_LAST_YEAR}")
    return VendorRow(
        _text("id", row.id, MAX_ID_LENGTH), _text("userId", row.user_id, MAX_USER_ID_LENGTH), row.type, amount, created_at
    )


def _errors(raw: bytes) -> str:
    """Return all errors of a row as one text; empty if the row is not JSON."""
    try:
        found, _ = find_errors(_Row, parse_tree(raw))
    except (ValueError, RecursionError):
        return ""
    return "; ".join(f"{'the row' if field == 'body' else field} {message}" for field, message in found)


def _id_of(raw: bytes) -> str | None:
    try:
        return _text("id", _id.decode(raw).id, MAX_ID_LENGTH)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _text(name: str, value: str | int, max_length: int) -> str:
    text = str(value)
    if not (1 <= len(text) <= max_length and text.isprintable()):
        raise ValueError(f"{name} must be text of 1 to {max_length} printable characters")
    return text
