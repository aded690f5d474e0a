"""`/vendor/v1/transactions`. It is the only endpoint with camelCase fields, like the vendor feed that it models."""

from typing import Final

from sandbox.http.operation import either, get, parameter
from sandbox.http.request import Request
from sandbox.users.vendor_feed.service import MAX_PAGE_NUMBER, MAX_PAGE_SIZE, FeedService, VendorPage, span

PER_MINUTE: Final = 5
DEFAULT_LIMIT: Final = 100
_DATE: Final = [{"format": "date-time"}, {"format": "date"}]


class FeedApi:
    """The operation of the vendor feed."""

    def __init__(self, feed: FeedService) -> None:
        self._feed = feed

    @get(
        "/vendor/v1/transactions",
        "List users' transactions, oldest first",
        {200: VendorPage},
        # Invalid requests count too, as they do with real vendors.
        key_rate_limit=PER_MINUTE,
        query=(
            parameter("startDate", "Only rows created at or after this time.", type="string", anyOf=_DATE),
            parameter(
                "endDate",
                "Only rows created at or before this time; a date includes the whole day.",
                type="string",
                anyOf=_DATE,
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
    async def list_vendor_transactions(self, request: Request) -> VendorPage:
        query = request.query
        part = span(query.get("startDate"), query.get("endDate"))
        number, limit = int(query.get("page", 1)), int(query.get("limit", DEFAULT_LIMIT))
        return await self._feed.page(request.merchant_id, part, number, limit)
