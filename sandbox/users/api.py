"""`/api/v1/users`, and who waits for approval: parse, call the service, render."""

from typing import Any, Final

import msgspec
from litestar import Router, get, post
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from sandbox.errors import invalid
from sandbox.http.answers import JSON, answered, ok
from sandbox.http.body import amount_of
from sandbox.http.entry import Gate, HttpRequest
from sandbox.http.operation import CREATED_FROM, CREATED_TO, CURSOR, LIMIT, Operation, parameter
from sandbox.http.paging import choice, query, window
from sandbox.payouts.model import Payout
from sandbox.users.commands import Transaction
from sandbox.users.requests import (
    CreateTransactionBody,
    CreateUserBody,
    CreateUsersBody,
    RequestPayoutBody,
)
from sandbox.users.service import RequestedPayout, Summary, User, UserBalance, UserService

_EXAMPLE: Final = {
    "name": "Ayesha Khan",
    "external_id": "customer-17",
    "destination": {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"},
}
_SEE: Final = {
    "get": ("get_user", "user_id"),
    "summary": ("get_user_summary", "user_id"),
    "balance": ("get_user_balance", "user_id"),
    "transactions": ("list_user_transactions", "user_id"),
    "earn": ("create_user_transaction", "user_id"),
    "request": ("request_user_payout", "user_id"),
}
_LIST: Final = Operation(
    "List users, newest first", {200: list[User]},
    query=(
        LIMIT, CURSOR,
        parameter("external_id", "Only the user with this id of yours.", type="string", minLength=1, maxLength=64),
        CREATED_FROM, CREATED_TO,
    ),
)  # fmt: skip
_TRANSACTIONS: Final = Operation(
    "What a user earned and spent, newest first", {200: list[Transaction]}, errors=("NOT_FOUND",),
    query=(
        LIMIT, CURSOR,
        parameter("type", "Only transactions of this type.", type="string", enum=["EARNED", "SPENT"]),
        CREATED_FROM, CREATED_TO,
    ),
)  # fmt: skip


def users_routers(gate: Gate, service: UserService) -> list[Router]:
    """The routes of users."""
    user_body = msgspec.json.Decoder(CreateUserBody)
    users_body = msgspec.json.Decoder(CreateUsersBody)
    transaction_body = msgspec.json.Decoder(CreateTransactionBody)
    payout_body = msgspec.json.Decoder(RequestPayoutBody)

    @post(
        "/", operation_id="create_user",
        opt={"operation": Operation("Make a user with a wallet", {201: User}, CreateUserBody, links=_SEE,
             errors=("DUPLICATE_REFERENCE",), idempotency="required", example=_EXAMPLE)},
    )  # fmt: skip
    async def create_user(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        parsed, key = await gate.parse(request, user_body, check=service.check)
        return answered(await service.create(caller.merchant_id, parsed, key, gate.origin(request)))

    @post(
        "/batch", operation_id="create_users", status_code=200,
        opt={"operation": Operation("Make up to 1000 users, each standing or falling alone",
             {200: dict[str, list[dict[str, Any]]]}, CreateUsersBody, idempotency="required",
             example={"users": [_EXAMPLE]})},
    )  # fmt: skip
    async def create_users(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        parsed, key = await gate.parse(request, users_body)
        return answered(await service.create_many(caller.merchant_id, parsed, key, gate.origin(request)))

    @get("/", operation_id="list_users", opt={"operation": _LIST})
    async def list_users(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        params = query(request, ("limit", "cursor", "external_id", "created_from", "created_to"))
        external_id = params.get("external_id")
        if not 1 <= len("-" if external_id is None else external_id) <= 64:
            raise invalid("external_id", "must have 1 to 64 characters")
        return ok(await service.list(caller.merchant_id, window(params), external_id))

    @get(
        "/{user_id:str}", operation_id="get_user",
        opt={"operation": Operation("Get a user", {200: User}, errors=("NOT_FOUND",))},
    )  # fmt: skip
    async def get_user(request: HttpRequest, user_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.get(caller.merchant_id, user_id))

    @post(
        "/{user_id:str}/transactions", operation_id="create_user_transaction",
        opt={"operation": Operation("Record what a user earned or spent", {201: Transaction}, CreateTransactionBody,
             errors=("NOT_FOUND",), idempotency="required", example={"type": "EARNED", "amount": "1000.00"})},
    )  # fmt: skip
    async def create_user_transaction(request: HttpRequest, user_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        parsed, key = await gate.parse(request, transaction_body)
        amount = amount_of(parsed.amount)
        origin = gate.origin(request)
        return answered(await service.record(caller.merchant_id, user_id, parsed.type, amount, parsed.reference, key, origin))

    @get("/{user_id:str}/transactions", operation_id="list_user_transactions", opt={"operation": _TRANSACTIONS})
    async def list_user_transactions(request: HttpRequest, user_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        params = query(request, ("limit", "cursor", "type", "created_from", "created_to"))
        types = choice(params, "type", ("EARNED", "SPENT"))
        return ok(await service.transactions(caller.merchant_id, user_id, window(params), types))

    @get(
        "/{user_id:str}/summary", operation_id="get_user_summary",
        opt={"operation": Operation("All that went through a user's wallet, summed up", {200: Summary},
             errors=("NOT_FOUND",), description="Cached for two minutes or until a change; `X-Cache` says HIT or MISS.")},
    )  # fmt: skip
    async def get_user_summary(request: HttpRequest, user_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        summary, cached = await service.summary(caller.merchant_id, user_id)
        return ASGIResponse(body=summary, media_type=JSON, headers={"x-cache": "HIT" if cached else "MISS"})

    @get(
        "/{user_id:str}/balance", operation_id="get_user_balance",
        opt={"operation": Operation("What is in a user's wallet", {200: UserBalance}, errors=("NOT_FOUND",))},
    )  # fmt: skip
    async def get_user_balance(request: HttpRequest, user_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.balance(caller.merchant_id, user_id))

    @post(
        "/{user_id:str}/payout", operation_id="request_user_payout",
        opt={"operation": Operation("Ask for a payout to a user's destination", {201: Payout}, RequestPayoutBody,
             errors=("NOT_FOUND", "INVALID_STATE", "INSUFFICIENT_BALANCE"), idempotency="required",
             example={"amount": "30.00"},
             description="It waits in REQUESTED until an admin approves or rejects it.")},
    )  # fmt: skip
    async def request_user_payout(request: HttpRequest, user_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        parsed, key = await gate.parse(request, payout_body)
        amount = amount_of(parsed.amount)
        return answered(await service.request_payout(caller.merchant_id, user_id, amount, key, gate.origin(request)))

    @get(
        "/", operation_id="list_payout_requests",
        opt={"operation": Operation("Users whose requests wait to be approved", {200: list[RequestedPayout]},
             query=(LIMIT, CURSOR))},
    )  # fmt: skip
    async def list_payout_requests(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        return ok(await service.requests(caller.merchant_id, window(query(request, ("limit", "cursor")))))

    return [
        Router(
            "/api/v1/users",
            route_handlers=[
                create_user, create_users, list_users, get_user, create_user_transaction, list_user_transactions,
                get_user_summary, get_user_balance, request_user_payout,
            ],
        ),
        Router("/api/v1/payouts/requests", route_handlers=[list_payout_requests]),
    ]  # fmt: skip
