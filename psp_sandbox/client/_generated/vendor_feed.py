"""The sandbox's own feed of users' transactions."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from datetime import date

from psp_sandbox.client._callers import Caller
from psp_sandbox.client._calls import Call, query
from psp_sandbox.client.models.vendor_feed import VendorPage


class VendorFeedApi:
    """The sandbox's own feed of users' transactions."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def transactions(
        self,
        *,
        start_date: date | str | None = None,
        end_date: date | str | None = None,
        page: int | None = None,
        limit: int | None = None,
    ) -> VendorPage:
        """List users' transactions, oldest first.

        At most 5 requests per key in any 60 seconds. Rows added between pages come last.

        start_date: Only rows created at or after this time.
        end_date: Only rows created at or before this time; a date includes the whole day.
        page: The page number.
        limit: Rows per page.
        """
        return self._caller.send(
            Call(
                VendorPage,
                "GET",
                "/vendor/v1/transactions",
                query=query({"startDate": start_date, "endDate": end_date, "page": page, "limit": limit}),
            )
        )
