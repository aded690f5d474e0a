"""`/aggregator/v1`: parse, call the service, render."""

from typing import Annotated, Any, Final

import msgspec
from litestar import Router, get, post, put
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from sandbox.aggregator.service import (
    AggregatorService,
    DeadLetter,
    Fetch,
    Replayed,
    Source,
    UnpaidRequests,
    VendorBalance,
)
from sandbox.domain.fields import Url
from sandbox.domain.redaction import Secret
from sandbox.domain.vendor_rows import LONGEST_USER_ID
from sandbox.http.answers import answered, ok
from sandbox.http.guard import HttpRequest, RequestGuard
from sandbox.http.operation import CREATED_FROM, CREATED_TO, CURSOR, LIMIT, Operation
from sandbox.http.paging import query, window

# Those that carry keys; a vendor's Host or Content-Length are none of a merchant's business.
HeaderName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^([Xx]-[A-Za-z0-9-]{1,60}|[Aa]uthorization|[Aa]pi-?[Kk]ey)\Z",
        extra={"must": "Authorization, Api-Key, or a name that begins with X-"},
    ),
]
HeaderValue = Annotated[
    Secret,
    msgspec.Meta(
        min_length=1,
        max_length=1000,
        pattern=r"^[!-~]([ -~]*[!-~])?\Z",
        extra={"must": "a string of 1 to 1000 printable ASCII characters that neither starts nor ends with a space"},
    ),
]

_USER: Final[dict[str, Any]] = {"user_id": {"type": "string", "minLength": 1, "maxLength": LONGEST_USER_ID}}
_WINDOW: Final = ("limit", "cursor", "created_from", "created_to")


class SourceBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `PUT /source`. Without a `url`, the sandbox's own feed is read and `headers` is ignored."""

    url: Url | None
    headers: Annotated[dict[HeaderName, HeaderValue], msgspec.Meta(max_length=10)] = msgspec.field(default_factory=dict)


_BALANCE: Final = Operation(
    "Get a user's balance according to the vendor", {200: VendorBalance}, errors=("NOT_FOUND",), path=_USER,
    description="`balance` = earned − spent − paid_out. Users' ids are text.",
)  # fmt: skip
_REQUESTED: Final = Operation(
    "Get the amount a user has requested and not been paid", {200: UnpaidRequests}, errors=("NOT_FOUND",), path=_USER,
    description="`requested_payout` = payout − paid_out.",
)  # fmt: skip
_FETCHES: Final = Operation(
    "List the calls to the vendor, newest first", {200: list[Fetch]}, query=(LIMIT, CURSOR, CREATED_FROM, CREATED_TO),
    description="Kept for seven days.",
)  # fmt: skip
_REPLAY: Final = Operation(
    "Retry all dead letters", {200: Replayed}, idempotency="optional",
    description="Rows that can be parsed now are added to the balances, each exactly once.",
)  # fmt: skip
_SET_SOURCE: Final = Operation(
    "Set where transactions are read from", {200: Source}, SourceBody, security="admin-key", idempotency="optional",
    example={"url": "https://vendor.example/vendor/v1/transactions", "headers": {"X-API-KEY": "the vendor's API key"}},
    description=(
        "`url` is the vendor's list of transactions. It is called with `startDate`, `page` and `limit` every 20 "
        "seconds, at most 5 times in any 60 seconds. Another URL starts over and drops what was read from the previous "
        "one."
    ),
)  # fmt: skip


def aggregator_router(gate: RequestGuard, service: AggregatorService) -> Router:
    """The routes of the aggregator."""
    body_decoder = msgspec.json.Decoder(SourceBody)

    @get("/users/{user_id:str}", operation_id="get_vendor_balance", opt={"operation": _BALANCE})
    async def get_vendor_balance(request: HttpRequest, user_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.balance(caller.merchant_id, user_id))

    @get("/users/{user_id:str}/payouts", operation_id="get_requested_payout", opt={"operation": _REQUESTED})
    async def get_requested_payout(request: HttpRequest, user_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.requested(caller.merchant_id, user_id))

    @get(
        "/payouts", operation_id="list_requested_payouts",
        opt={"operation": Operation("List users with requested payouts that were not paid", {200: list[UnpaidRequests]},
             query=(LIMIT, CURSOR))},
    )  # fmt: skip
    async def list_requested_payouts(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        return ok(await service.waiting(caller.merchant_id, window(query(request, ("limit", "cursor")))))

    @get("/fetches", operation_id="list_fetches", opt={"operation": _FETCHES})
    async def list_fetches(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        return ok(await service.fetches(caller.merchant_id, window(query(request, _WINDOW))))

    @get(
        "/dead-letters", operation_id="list_dead_letters",
        opt={"operation": Operation("List the vendor's rows that could not be parsed, newest first",
             {200: list[DeadLetter]}, query=(LIMIT, CURSOR, CREATED_FROM, CREATED_TO))},
    )  # fmt: skip
    async def list_dead_letters(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        return ok(await service.dead_letters(caller.merchant_id, window(query(request, _WINDOW))))

    @post("/dead-letters/replay", operation_id="replay_dead_letters", status_code=200, opt={"operation": _REPLAY})
    async def replay_dead_letters(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        key = await gate.optional_key(request)
        return answered(await service.replay(gate.context(request, key)))

    @get(
        "/source", operation_id="get_source",
        opt={"operation": Operation("Get where transactions are read from", {200: Source})},
    )  # fmt: skip
    async def get_source(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.source(caller.merchant_id))

    @put("/source", operation_id="set_source", opt={"operation": _SET_SOURCE})
    async def set_source(request: HttpRequest) -> ASGIResponse:
        await gate.admin(request)
        body, key = await gate.parse(request, body_decoder, key_required=False, check=service.check)
        return answered(await service.set_source(gate.context(request, key), body.url, body.headers))

    return Router(
        "/aggregator/v1",
        route_handlers=[
            get_vendor_balance, get_requested_payout, list_requested_payouts, list_fetches, list_dead_letters,
            replay_dead_letters, get_source, set_source,
        ],
    )  # fmt: skip
