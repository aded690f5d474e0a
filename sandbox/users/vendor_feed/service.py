"""The vendor feed: what a merchant's users earned, spent, requested and were paid, in pages with a stable order.

Like the feeds that it models, it has camelCase fields, which no other operation has.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Final

import msgspec

from sandbox.domain import clock
from sandbox.domain.errors import invalid
from sandbox.domain.fields import Id, Timestamp, one_of
from sandbox.domain.ids import MAX_ID, MIN_ID, first_id_at
from sandbox.http.operation import either, get, parameter
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements

PER_MINUTE: Final = 5
DEFAULT_LIMIT: Final = 100
MAX_PAGE_SIZE: Final = 1000
MAX_PAGE_NUMBER: Final = 1_000_000
_DAY: Final = 86_400_000
# Python's parser also accepts week dates such as 2026-W47-1. This pattern excludes them.
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)

_SQL: Final = read_statements(__name__)


class VendorTransaction(msgspec.Struct, rename="camel"):
    """One row of the feed. `userId` is a string (`"074092"` keeps its zero); `type` is earned, spent, payout or paid_out.

    A payout that ends unpaid adds a `payout` row with the negative amount; a returned payout also adds a
    negative `paid_out` row.
    """

    id: Id
    user_id: str
    created_at: Timestamp
    type: Annotated[str, one_of(("earned", "spent", "payout", "paid_out"))]
    amount: Decimal


class VendorMeta(msgspec.Struct, rename="camel"):
    """The position of a page in the whole result."""

    total_items: int
    item_count: int
    items_per_page: int
    total_pages: int
    current_page: int


class VendorPage(msgspec.Struct):
    """One page of the feed, oldest first."""

    items: list[VendorTransaction]
    meta: VendorMeta


@dataclass(frozen=True, slots=True)
class Span:
    """A range of row ids, from `first` (inclusive) to `end` (exclusive)."""

    first: str = MIN_ID
    end: str = MAX_ID


def span(start: str | None, end: str | None) -> Span:
    """Return the span from startDate to endDate, both inclusive. A plain date means the whole day. Raises VALIDATION_ERROR."""
    return Span(
        MIN_ID if start is None else first_id_at(_moment("startDate", start)[0]),
        MAX_ID if end is None else first_id_at(_moment("endDate", end)[1] + 1),
    )


def _moment(name: str, text: str) -> tuple[int, int]:
    """Return the first and last millisecond since the epoch of a time or a date."""
    try:
        if _DATE.match(text):
            day = date.fromisoformat(text)
            first = clock.milliseconds(datetime(day.year, day.month, day.day, tzinfo=UTC))
            return first, first + _DAY - 1
        # An unescaped + in a query string is decoded to a space.
        moment = clock.parse(text.replace(" ", "+"))
        last = clock.milliseconds(moment)
        return last + (moment.microsecond % 1000 > 0), last
    except (ValueError, OverflowError):
        raise invalid(name, "must be a date such as 2026-01-31, or an RFC 3339 time with an offset") from None


_DATE_OR_TIME: Final = [{"format": "date-time"}, {"format": "date"}]


class FeedService:
    """Reads the feed."""

    @get(
        "/vendor/v1/transactions",
        "List users' transactions, oldest first",
        {200: VendorPage},
        # Invalid requests count too, as they do with real vendors.
        key_rate_limit=PER_MINUTE,
        query=(
            parameter("startDate", "Only rows created at or after this time.", type="string", anyOf=_DATE_OR_TIME),
            parameter(
                "endDate",
                "Only rows created at or before this time; a date includes the whole day.",
                type="string",
                anyOf=_DATE_OR_TIME,
            ),
            parameter("page", "The page number.", type="integer", minimum=1, maximum=MAX_PAGE_NUMBER, default=1),
            parameter("limit", "Rows per page.", type="integer", minimum=1, maximum=MAX_PAGE_SIZE, default=DEFAULT_LIMIT),
        ),
        description=f"At most {PER_MINUTE} requests per key in any 60 seconds. Rows added between pages come last.",
        psp=either(
            "aggregator feed --start-date {startDate} --end-date {endDate} --page {page}",
            "--limit! {limit}",
            f"--limit {DEFAULT_LIMIT}",
        ),
    )
    async def list_vendor_transactions(self, merchant_id: str, query: Mapping[str, str]) -> VendorPage:
        """Return the page that a request asks for. Raises VALIDATION_ERROR."""
        part = span(query.get("startDate"), query.get("endDate"))
        return await self.page(merchant_id, part, int(query.get("page", 1)), int(query.get("limit", DEFAULT_LIMIT)))

    async def page(self, merchant_id: str, part: Span, number: int, limit: int) -> VendorPage:
        """Return page `number`, from 1, of a merchant's rows, with `limit` rows per page."""
        async with connection(merchant_id) as conn:
            records = await conn.fetch(_SQL["page"], merchant_id, part.first, part.end, (number - 1) * limit, limit)
        total = records[0]["total"]
        items = [
            VendorTransaction(r["id"], r["vendor_user_id"], clock.render(r["created_at"]), r["type"], r["amount"])
            for r in records
            if r["id"] is not None
        ]
        return VendorPage(items, VendorMeta(total, len(items), limit, -(-total // limit), number))
