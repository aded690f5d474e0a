"""`/api/v1/balance`, and the top-up of `/sandbox/v1/balance`."""

from typing import get_args

import msgspec
from litestar import Router, get, post
from litestar.response.base import ASGIResponse

from sandbox.balance.service import Balance, BalanceService, LedgerEntry
from sandbox.domain.body import amount_of
from sandbox.domain.choices import Account
from sandbox.domain.fields import Amount
from sandbox.http.answers import answered, ok
from sandbox.http.guard import HttpRequest, RequestGuard
from sandbox.http.operation import CREATED_FROM, CREATED_TO, CURSOR, LIMIT, Operation, parameter
from sandbox.http.paging import choice, query, uuid_param, window


class TopUpBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /balance/top-up`."""

    amount: Amount


def balance_routers(gate: RequestGuard, service: BalanceService) -> list[Router]:
    """The routes of the balance."""
    body_decoder = msgspec.json.Decoder(TopUpBody)

    @get("/", operation_id="get_balance", opt={"operation": Operation("Get the balance", {200: Balance})})
    async def get_balance(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.get(caller.merchant_id))

    @get(
        "/history", operation_id="list_ledger_entries",
        opt={"operation": Operation(
            "List ledger entries, newest first", {200: list[LedgerEntry]},
            query=(
                LIMIT, CURSOR,
                parameter("payout_id", "Only entries for this payout.", type="string", format="uuid"),
                parameter("account", "Only entries on this account.", type="string", enum=list(get_args(Account))),
                CREATED_FROM, CREATED_TO,
            ),
        )},
    )  # fmt: skip
    async def list_ledger_entries(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        params = query(request, ("limit", "cursor", "payout_id", "account", "created_from", "created_to"))
        uuid_param(params, "payout_id")
        choice(params, "account", get_args(Account))
        return ok(await service.history(caller.merchant_id, window(params), params))

    @post(
        "/top-up", operation_id="top_up_balance", status_code=200,
        opt={"operation": Operation("Top up the available balance", {200: Balance}, TopUpBody, idempotency="optional",
             errors=("IDEMPOTENCY_KEY_REUSED",), example={"amount": "5000.00"})},
    )  # fmt: skip
    async def top_up_balance(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await gate.parse(request, body_decoder, key_required=False)
        return answered(await service.top_up(gate.context(request, key), amount_of(parsed.amount)))

    return [
        Router("/api/v1/balance", route_handlers=[get_balance, list_ledger_entries]),
        Router("/sandbox/v1/balance", route_handlers=[top_up_balance]),
    ]
