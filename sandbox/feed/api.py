"""`/vendor/v1/transactions`, the one endpoint that speaks camelCase: the challenge's vendor does."""

from typing import Final

from litestar import Router, get
from litestar.response.base import ASGIResponse

from sandbox.feed.service import LARGEST_PAGE, LARGEST_PAGE_NUMBER, FeedService, VendorPage, span
from sandbox.http.answers import ok
from sandbox.http.guard import HttpRequest, RequestGuard
from sandbox.http.operation import Operation, parameter
from sandbox.http.paging import query
from sandbox.http.rate_limit import RateLimiter

PER_MINUTE: Final = 5
DEFAULT_LIMIT: Final = 100
_DATE: Final = [{"format": "date-time"}, {"format": "date"}]

_LIST: Final = Operation(
    "List users' transactions, oldest first", {200: VendorPage},
    query=(
        parameter("startDate", "Only rows created at or after this time.", type="string", anyOf=_DATE),
        parameter("endDate", "Only rows created at or before this time; a date includes the whole day.",
                  type="string", anyOf=_DATE),
        parameter("page", "The page number.", type="integer", minimum=1, maximum=LARGEST_PAGE_NUMBER, default=1),
        parameter("limit", "Rows per page.", type="integer", minimum=1, maximum=LARGEST_PAGE, default=DEFAULT_LIMIT),
    ),
    description="At most 5 requests per key in any 60 seconds. Rows added between pages come last.",
)  # fmt: skip


def feed_router(gate: RequestGuard, service: FeedService, limiter: RateLimiter) -> Router:
    """The route of the vendor feed."""

    @get("/transactions", operation_id="list_vendor_transactions", opt={"operation": _LIST})
    async def list_vendor_transactions(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        # A request that is not valid counts as well, as real vendors have it.
        await limiter.require("vendor", caller.key_id, caller.merchant_id, PER_MINUTE)
        params = query(request, ("startDate", "endDate", "page", "limit"))
        part = span(params.get("startDate"), params.get("endDate"))
        number, limit = int(params.get("page", 1)), int(params.get("limit", DEFAULT_LIMIT))
        return ok(await service.page(caller.merchant_id, part, number, limit))

    return Router("/vendor/v1", route_handlers=[list_vendor_transactions])
