"""`/api/v1/wallet/bulk-credit`: parse, call the service, render."""

from typing import Annotated, Final

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from sandbox.bulk_credit.service import BulkCreditService, position_line
from sandbox.bulk_credit.upload import LARGEST_FILE, receive_file
from sandbox.domain.bulk_credit import ITEM_STATUSES, Accepted, Activity, Item
from sandbox.domain.fields import Uuid
from sandbox.http.answers import answered, ok
from sandbox.http.guard import HttpRequest, RequestGuard
from sandbox.http.operation import CURSOR, LIMIT, Operation, parameter
from sandbox.http.paging import query, window

_FORM_OVERHEAD: Final = 64 * 1024

File = Annotated[
    str,
    msgspec.Meta(
        description="A CSV file with the header uuid,amount, at most 50 MB: a user's id and an amount on each line.",
        extra_json_schema={"format": "binary"},
    ),
]


class UploadForm(msgspec.Struct, kw_only=True):
    """The form of `POST /wallet/bulk-credit`."""

    file: File


class RetryBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /wallet/bulk-credit/retry`."""

    activity_id: Uuid


_SEE: Final = {
    "get": ("get_bulk_credit", "activity_id"),
    "items": ("list_bulk_credit_items", "activity_id"),
}
_UPLOAD: Final = Operation(
    "Credit many wallets from a CSV file", {202: Accepted}, UploadForm, idempotency="required", links=_SEE,
    raw_media_type="multipart/form-data", example={"file": "uuid,amount\n019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77,100.00\n"},
    description="Each row succeeds or fails independently. Workers credit the rows in the background: poll the "
    "activity, or subscribe to `bulk_credit.completed`.",
)  # fmt: skip
_RETRY: Final = Operation(
    "Retry the rows that failed", {202: Accepted}, RetryBody, errors=("NOT_FOUND", "NOT_RETRYABLE"),
    idempotency="required", example={"activity_id": "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77"},
)  # fmt: skip
_STATUSES: Final = [*ITEM_STATUSES, *(status.lower() for status in ITEM_STATUSES)]
"""Rows are `invalid` in the counts and INVALID in the list: a filter takes either."""
_ITEMS: Final = Operation(
    "List the rows of a bulk credit, in file order", {200: list[Item]}, errors=("NOT_FOUND",),
    query=(LIMIT, CURSOR, parameter("status", "Only rows in this state.", type="string", enum=_STATUSES)),
)  # fmt: skip


def bulk_credit_router(gate: RequestGuard, service: BulkCreditService) -> Router:
    """The routes of bulk credits."""
    retry_body = msgspec.json.Decoder(RetryBody)

    @post(
        "/", operation_id="upload_bulk_credit", status_code=202, opt={"operation": _UPLOAD},
        request_max_body_size=LARGEST_FILE + _FORM_OVERHEAD,
    )  # fmt: skip
    async def upload_bulk_credit(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        gate.idempotency_key(request, b"", is_json=False)  # a missing key is told before 50 MB are read
        upload = await receive_file(request)
        with upload.file:
            # What is in the file counts, and not the boundaries around it, which a client chooses anew each time.
            key = gate.idempotency_key(request, upload.digest, is_json=False)
            assert key is not None
            return answered(await service.upload(gate.context(request, key), upload))

    @post("/retry", operation_id="retry_bulk_credit", status_code=202, opt={"operation": _RETRY})
    async def retry_bulk_credit(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await gate.parse(request, retry_body)
        return answered(await service.retry(gate.context(request, key), parsed.activity_id))

    @get(
        "/{activity_id:str}", operation_id="get_bulk_credit",
        opt={"operation": Operation("Get a bulk credit", {200: Activity}, errors=("NOT_FOUND",))},
    )  # fmt: skip
    async def get_bulk_credit(request: HttpRequest, activity_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.get(caller.merchant_id, activity_id))

    @get("/{activity_id:str}/items", operation_id="list_bulk_credit_items", opt={"operation": _ITEMS})
    async def list_bulk_credit_items(request: HttpRequest, activity_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        params = query(request, ("limit", "cursor", "status"))
        status = params.get("status", "").upper() or None
        part = window(params)
        behind = position_line(part.before) if "cursor" in params else 0
        return ok(await service.items(caller.merchant_id, activity_id, part.limit, behind, status))

    return Router(
        "/api/v1/wallet/bulk-credit",
        route_handlers=[upload_bulk_credit, retry_bulk_credit, get_bulk_credit, list_bulk_credit_items],
    )
