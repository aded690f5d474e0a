"""`/aggregator/v1`: parse, call the service, render."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from sandbox.aggregator.service import (
    AggregatorService,
    DeadLetter,
    Fetch,
    Replayed,
    Source,
    UnpaidRequests,
    VendorBalance,
)
from sandbox.domain.body_errors import FieldProblem
from sandbox.domain.fields import Url
from sandbox.domain.redaction import Secret
from sandbox.domain.unit import CommandResult
from sandbox.domain.vendor_rows import MAX_USER_ID_LENGTH
from sandbox.http.operation import DATED_PAGE, PAGE, either, get, post, put
from sandbox.http.paging import Page, window
from sandbox.http.request import Request

# Only headers that carry keys. A merchant must not set headers such as Host or Content-Length.
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

VendorUserId = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=MAX_USER_ID_LENGTH,
        description="The user's id at the vendor.",
        extra={"must": f"a string of 1 to {MAX_USER_ID_LENGTH} characters"},
    ),
]


class SourceBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `PUT /source`. Without a `url`, the sandbox's own feed is read and `headers` is ignored."""

    url: Url | None
    headers: Annotated[dict[HeaderName, HeaderValue], msgspec.Meta(max_length=10)] = msgspec.field(default_factory=dict)


class AggregatorApi:
    """The operations of the aggregator."""

    def __init__(self, aggregator: AggregatorService) -> None:
        self._aggregator = aggregator

    def _check(self, fields: Mapping[str, Any]) -> Sequence[FieldProblem]:
        return self._aggregator.check(fields)

    @get(
        "/aggregator/v1/users/{user_id}",
        "Get a user's balance according to the vendor",
        {200: VendorBalance},
        description="`balance` = earned − spent − paid_out. User ids are strings.",
        psp="aggregator user",
    )
    async def get_vendor_balance(self, request: Request, user_id: VendorUserId) -> VendorBalance:
        return await self._aggregator.balance(request.merchant_id, user_id)

    @get(
        "/aggregator/v1/users/{user_id}/payouts",
        "Get the amount a user has requested and not been paid",
        {200: UnpaidRequests},
        description="`requested_payout` = payout − paid_out.",
        psp="aggregator requested",
    )
    async def get_requested_payout(self, request: Request, user_id: VendorUserId) -> UnpaidRequests:
        return await self._aggregator.requested(request.merchant_id, user_id)

    @get(
        "/aggregator/v1/payouts",
        "List users with requested payouts that have not been paid",
        {200: list[UnpaidRequests]},
        query=PAGE,
        psp="aggregator waiting",
        columns="user_id requested_payout",
    )
    async def list_requested_payouts(self, request: Request) -> Page:
        return await self._aggregator.list_unpaid(request.merchant_id, window(request.query))

    @get(
        "/aggregator/v1/fetches",
        "List the calls to the vendor, newest first",
        {200: list[Fetch]},
        query=DATED_PAGE,
        description="Kept for seven days.",
        psp="aggregator fetches",
        columns="at page outcome status rows new_rows dead_letters duration_ms error",
    )
    async def list_fetches(self, request: Request) -> Page:
        return await self._aggregator.fetches(request.merchant_id, window(request.query))

    @get(
        "/aggregator/v1/dead-letters",
        "List the vendor's rows that could not be parsed, newest first",
        {200: list[DeadLetter]},
        query=DATED_PAGE,
        psp="aggregator dead-letters",
        columns="id created_at reason raw",
    )
    async def list_dead_letters(self, request: Request) -> Page:
        return await self._aggregator.dead_letters(request.merchant_id, window(request.query))

    @post(
        "/aggregator/v1/dead-letters/replay",
        "Retry all dead letters",
        {200: Replayed},
        description="Rows that can be parsed now are added to the balances, each exactly once.",
        psp="aggregator replay",
    )
    async def replay_dead_letters(self, request: Request) -> CommandResult:
        return await self._aggregator.replay(request.context)

    @get("/aggregator/v1/source", "Get the source of transactions", {200: Source}, psp="aggregator source")
    async def get_source(self, request: Request) -> Source:
        return await self._aggregator.source(request.merchant_id)

    @put(
        "/aggregator/v1/source",
        "Set the source of transactions",
        {200: Source},
        SourceBody,
        access="admin",
        example={"url": "https://vendor.example/vendor/v1/transactions", "headers": {"X-API-KEY": "the vendor's API key"}},
        check=_check,
        description="`url` is the vendor's list of transactions. It is called with `startDate`, `page` and `limit` every "
        "20 seconds, at most 5 times in any 60 seconds. Another URL restarts polling from the beginning and deletes "
        "everything read from the previous one.",
        psp=either("aggregator source", "--set! {url} --header {headers:pairs} headers?={}", "--own url=null headers?={}"),
    )
    async def set_source(self, request: Request, body: SourceBody) -> CommandResult:
        return await self._aggregator.set_source(request.context, body.url, body.headers)
