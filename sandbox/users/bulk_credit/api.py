"""The operations on bulk credits: `/api/v1/wallet/bulk-credit`."""

from typing import Annotated, Final

import msgspec

from sandbox.domain.bulk_credit import ITEM_STATUSES, Accepted, Activity, Item
from sandbox.domain.fields import Uuid
from sandbox.domain.unit import CommandResult
from sandbox.http.operation import PAGE, either, get, parameter, post
from sandbox.http.paging import Page, window
from sandbox.http.request import Request
from sandbox.users.bulk_credit.service import BulkCreditService, line_from_cursor
from sandbox.users.bulk_credit.upload import MAX_FILE_SIZE, Upload, receive_file

_FORM_OVERHEAD: Final = 64 * 1024

File = Annotated[
    str,
    msgspec.Meta(
        description="A CSV file of at most 50 MB with the header `uuid,amount`. Each row has a user's id and an amount.",
        extra_json_schema={"format": "binary"},
    ),
]


class UploadForm(msgspec.Struct, kw_only=True):
    """The form of `POST /wallet/bulk-credit`."""

    file: File


class RetryBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /wallet/bulk-credit/retry`."""

    activity_id: Uuid


_LINKS: Final = {
    "get": ("get_bulk_credit", "activity_id"),
    "items": ("list_bulk_credit_items", "activity_id"),
}
# Code generators make the same name of two values that differ by case, so the document has each value once.
_STATUS: Final = parameter(
    "status",
    "Only rows with this status, in upper or lower case.",
    type="string",
    enum=list(ITEM_STATUSES),
    **{"x-any-case": True},
)
"""The filter accepts both cases: the counts call rows `invalid`, the list calls them INVALID."""
_DUPLICATES: Final = parameter("duplicates", "Only rows that equal an earlier row.", type="string", enum=["only"])


class BulkCreditApi:
    """The operations on bulk credits."""

    def __init__(self, credits: BulkCreditService) -> None:
        self._credits = credits

    @post(
        "/api/v1/wallet/bulk-credit",
        "Credit many wallets from a CSV file",
        {202: Accepted},
        UploadForm,
        links=_LINKS,
        receive=receive_file,
        body_limit=MAX_FILE_SIZE + _FORM_OVERHEAD,
        example={"file": "uuid,amount\n019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77,100.00\n"},
        description="Each row is a credit, and succeeds or fails independently. Rows with the same user and amount are "
        "separate credits; `duplicates` counts those that equal an earlier row. Workers credit the rows in the background: "
        "poll the activity, or subscribe to `bulk_credit.completed`.",
        psp="bulk-credit {*:file=credits.csv}",
    )
    async def upload_bulk_credit(self, request: Request, body: Upload) -> CommandResult:
        with body.file:
            return await self._credits.upload(request.context, body)

    @post(
        "/api/v1/wallet/bulk-credit/retry",
        "Retry the rows that failed",
        {202: Accepted},
        RetryBody,
        errors=("NOT_FOUND", "NOT_RETRYABLE"),
        example={"activity_id": "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77"},
        psp="bulk-credit --retry! {activity_id}",
    )
    async def retry_bulk_credit(self, request: Request, body: RetryBody) -> CommandResult:
        return await self._credits.retry(request.context, body.activity_id)

    @get(
        "/api/v1/wallet/bulk-credit",
        "List bulk credits, newest first",
        {200: list[Activity]},
        query=PAGE,
        psp="bulk-credit --list",
    )
    async def list_bulk_credits(self, request: Request) -> Page:
        return await self._credits.list(request.merchant_id, window(request.query))

    @get(
        "/api/v1/wallet/bulk-credit/{activity_id}",
        "Get a bulk credit",
        {200: Activity},
        psp="bulk-credit --show! {activity_id}",
    )
    async def get_bulk_credit(self, request: Request, activity_id: Uuid) -> Activity:
        return await self._credits.get(request.merchant_id, activity_id)

    @get(
        "/api/v1/wallet/bulk-credit/{activity_id}/items",
        "List the rows of a bulk credit, in file order",
        {200: list[Item]},
        query=(*PAGE, _STATUS, _DUPLICATES),
        psp=either("bulk-credit --items! {activity_id}", "", "--duplicates duplicates=only"),
    )
    async def list_bulk_credit_items(self, request: Request, activity_id: Uuid) -> Page:
        status = request.query.get("status", "").upper() or None
        page = window(request.query)
        after_line = line_from_cursor(page.before) if "cursor" in request.query else 0
        return await self._credits.items(
            request.merchant_id, activity_id, page.limit, after_line, status, only_duplicates="duplicates" in request.query
        )
