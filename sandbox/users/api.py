"""`/api/v1/users`, and who waits for approval: parse, call the service, render."""

from typing import Final

import msgspec
from litestar import Router, get, patch, post
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from sandbox.balance.service import LedgerEntry
from sandbox.domain.body import amount_of
from sandbox.domain.payout import Payout
from sandbox.domain.user_commands import Transaction
from sandbox.http.answers import JSON, answered, ok
from sandbox.http.guard import HttpRequest, RequestGuard
from sandbox.http.operation import CREATED_FROM, CREATED_TO, CURSOR, LIMIT, Operation, parameter
from sandbox.http.paging import choice, query, uuid_param, window
from sandbox.users.history import TRANSACTION_TYPES
from sandbox.users.requests import (
    ChangeUserBody,
    CreateTransactionBody,
    CreateUserBody,
    CreateUsersBody,
    RequestPayoutBody,
)
from sandbox.users.service import RequestedPayout, Summary, User, UserBalance, UserResults, UserService

_EXAMPLE: Final = {
    "name": "Ayesha Khan",
    "external_id": "customer-17",
    "destination": {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"},
}
_SEE: Final = {
    "get": ("get_user", "user_id"),
    "summary": ("get_user_summary", "user_id"),
    "balance": ("get_user_balance", "user_id"),
    "change": ("change_user", "user_id"),
    "transactions": ("list_user_transactions", "user_id"),
    "history": ("list_wallet_entries", "user_id"),
    "earn": ("create_user_transaction", "user_id"),
    "request": ("request_user_payout", "user_id"),
}
_LIST: Final = Operation(
    "List users, newest first", {200: list[User]},
    query=(
        LIMIT, CURSOR,
        parameter("external_id", "Only the user with this external id.", type="string", minLength=1, maxLength=64),
        CREATED_FROM, CREATED_TO,
    ),
)  # fmt: skip
_TRANSACTIONS: Final = Operation(
    "List a user's transactions, newest first", {200: list[Transaction]}, errors=("NOT_FOUND",),
    query=(
        LIMIT, CURSOR,
        parameter("type", "Only transactions of this type.", type="string", enum=list(TRANSACTION_TYPES)),
        CREATED_FROM, CREATED_TO,
    ),
    description="All types: earned, spent, credited in bulk, paid for sales (a negative FINAL was taken back), "
    "requested (PAYOUT) and paid (PAID_OUT). A payout that ends unpaid adds rows with the negative amounts.",
)  # fmt: skip
_HISTORY: Final = Operation(
    "List the ledger entries of a user's wallet, newest first", {200: list[LedgerEntry]}, errors=("NOT_FOUND",),
    query=(
        LIMIT, CURSOR,
        parameter("payout_id", "Only entries for this payout.", type="string", format="uuid"),
        CREATED_FROM, CREATED_TO,
    ),
    description="`balance_after` of the newest entry is the wallet's balance.",
)  # fmt: skip


def users_routers(gate: RequestGuard, service: UserService) -> list[Router]:
    """The routes of users."""
    user_body = msgspec.json.Decoder(CreateUserBody)
    change_body = msgspec.json.Decoder(ChangeUserBody)
    users_body = msgspec.json.Decoder(CreateUsersBody)
    transaction_body = msgspec.json.Decoder(CreateTransactionBody)
    payout_body = msgspec.json.Decoder(RequestPayoutBody)

    @post(
        "/", operation_id="create_user",
        opt={"operation": Operation("Create a user with a wallet", {201: User}, CreateUserBody, links=_SEE,
             errors=("DUPLICATE_REFERENCE",), idempotency="required", example=_EXAMPLE)},
    )  # fmt: skip
    async def create_user(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await gate.parse(request, user_body, check=service.check)
        return answered(await service.create(gate.context(request, key), parsed))

    @post(
        "/batch", operation_id="create_users", status_code=200,
        opt={"operation": Operation("Create up to 1000 users, each independently",
             {200: UserResults}, CreateUsersBody, idempotency="required",
             example={"users": [_EXAMPLE]})},
    )  # fmt: skip
    async def create_users(request: HttpRequest) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await gate.parse(request, users_body)
        return answered(await service.create_many(gate.context(request, key), parsed))

    @get("/", operation_id="list_users", opt={"operation": _LIST})
    async def list_users(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        params = query(request, ("limit", "cursor", "external_id", "created_from", "created_to"))
        return ok(await service.list(caller.merchant_id, window(params), params.get("external_id")))

    @get(
        "/{user_id:str}", operation_id="get_user",
        opt={"operation": Operation("Get a user", {200: User}, errors=("NOT_FOUND",))},
    )  # fmt: skip
    async def get_user(request: HttpRequest, user_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.get(caller.merchant_id, user_id))

    @patch(
        "/{user_id:str}", operation_id="change_user",
        opt={"operation": Operation("Change a user", {200: User}, ChangeUserBody,
             errors=("NOT_FOUND", "DUPLICATE_REFERENCE"), idempotency="required",
             example={"destination": _EXAMPLE["destination"]},
             description="Payouts already requested keep their destination; the next payments for sales go to the new one.")},
    )  # fmt: skip
    async def change_user(request: HttpRequest, user_id: FromPath[str]) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await gate.parse(request, change_body, check=service.check)
        return answered(await service.change(gate.context(request, key), user_id, parsed))

    @post(
        "/{user_id:str}/transactions", operation_id="create_user_transaction",
        opt={"operation": Operation("Record what a user earned or spent", {201: Transaction}, CreateTransactionBody,
             errors=("NOT_FOUND",), idempotency="required", example={"type": "EARNED", "amount": "1000.00"})},
    )  # fmt: skip
    async def create_user_transaction(request: HttpRequest, user_id: FromPath[str]) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await gate.parse(request, transaction_body)
        amount = amount_of(parsed.amount)
        return answered(await service.record(gate.context(request, key), user_id, parsed.type, amount, parsed.reference))

    @get("/{user_id:str}/transactions", operation_id="list_user_transactions", opt={"operation": _TRANSACTIONS})
    async def list_user_transactions(request: HttpRequest, user_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        params = query(request, ("limit", "cursor", "type", "created_from", "created_to"))
        types = choice(params, "type", TRANSACTION_TYPES)
        return ok(await service.transactions(caller.merchant_id, user_id, window(params), types))

    @get("/{user_id:str}/history", operation_id="list_wallet_entries", opt={"operation": _HISTORY})
    async def list_wallet_entries(request: HttpRequest, user_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        params = query(request, ("limit", "cursor", "payout_id", "created_from", "created_to"))
        payout_id = uuid_param(params, "payout_id")
        return ok(await service.history(caller.merchant_id, user_id, window(params), payout_id))

    @get(
        "/{user_id:str}/summary", operation_id="get_user_summary",
        opt={"operation": Operation("Get the totals of a user's wallet", {200: Summary},
             errors=("NOT_FOUND",), description="Cached for two minutes or until a change; `X-Cache` says HIT or MISS.")},
    )  # fmt: skip
    async def get_user_summary(request: HttpRequest, user_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        summary, cached = await service.summary(caller.merchant_id, user_id)
        return ASGIResponse(body=summary, media_type=JSON, headers={"x-cache": "HIT" if cached else "MISS"})

    @get(
        "/{user_id:str}/balance", operation_id="get_user_balance",
        opt={"operation": Operation("Get the balance of a user's wallet", {200: UserBalance}, errors=("NOT_FOUND",))},
    )  # fmt: skip
    async def get_user_balance(request: HttpRequest, user_id: FromPath[str]) -> ASGIResponse:
        caller = await gate.caller(request)
        query(request, ())
        return ok(await service.balance(caller.merchant_id, user_id))

    @post(
        "/{user_id:str}/payout", operation_id="request_user_payout",
        opt={"operation": Operation("Request a payout to a user's destination", {201: Payout}, RequestPayoutBody,
             errors=("NOT_FOUND", "INVALID_STATE", "INSUFFICIENT_BALANCE"), idempotency="required",
             example={"amount": "30.00"},
             description="It waits in REQUESTED until an admin approves or rejects it. Both the user's and the "
             "merchant's available balance must cover it, and the merchant's is locked meanwhile; a refusal says which "
             "one is too low.")},
    )  # fmt: skip
    async def request_user_payout(request: HttpRequest, user_id: FromPath[str]) -> ASGIResponse:
        await gate.caller(request)
        parsed, key = await gate.parse(request, payout_body)
        amount = amount_of(parsed.amount)
        return answered(await service.request_payout(gate.context(request, key), user_id, amount))

    @get(
        "/", operation_id="list_payout_requests",
        opt={"operation": Operation("List users with payout requests waiting for approval", {200: list[RequestedPayout]},
             query=(LIMIT, CURSOR))},
    )  # fmt: skip
    async def list_payout_requests(request: HttpRequest) -> ASGIResponse:
        caller = await gate.caller(request)
        return ok(await service.requests(caller.merchant_id, window(query(request, ("limit", "cursor")))))

    return [
        Router(
            "/api/v1/users",
            route_handlers=[
                create_user, create_users, list_users, get_user, change_user, create_user_transaction,
                list_user_transactions, list_wallet_entries, get_user_summary, get_user_balance, request_user_payout,
            ],
        ),
        Router("/api/v1/payouts/requests", route_handlers=[list_payout_requests]),
    ]  # fmt: skip
