"""The operations on users and their wallets: `/api/v1/users`, and the list `/api/v1/payouts/requests`."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sandbox.domain.fields import Uuid
from sandbox.domain.ledger_entry import LedgerEntry
from sandbox.domain.payout import Payout
from sandbox.domain.unit import CommandResult
from sandbox.http.body import amount_of
from sandbox.http.body_errors import FieldProblem
from sandbox.http.operation import DATED_PAGE, PAGE, either, get, parameter, patch, post
from sandbox.http.paging import MAX_SCANNED, Page, selected, window
from sandbox.http.request import Request
from sandbox.http.responses import Response
from sandbox.users.commands import Transaction
from sandbox.users.history import TRANSACTION_TYPES
from sandbox.users.requests import (
    ChangeUserBody,
    CreateTransactionBody,
    CreateUserBody,
    CreateUsersBody,
    RequestPayoutBody,
)
from sandbox.users.service import RequestedTotal, Summary, User, UserBalance, UserResults, UserService

_EXAMPLE: Final = {
    "name": "Ayesha Khan",
    "external_id": "customer-17",
    "destination": {"dest_type": "BANK", "bank_code": "HBL", "account_number": "12345678900001"},
}
_PSP_DESTINATIONS: Final = (
    "--account! {destination.account_number} --bank! {destination.bank_code} destination.dest_type=BANK",
    "--account! {destination.account_number} --wallet! {destination.wallet_code} destination.dest_type=WALLET",
    "",
)
_LINKS: Final = {
    "get": ("get_user", "user_id"),
    "summary": ("get_user_summary", "user_id"),
    "balance": ("get_user_balance", "user_id"),
    "change": ("change_user", "user_id"),
    "transactions": ("list_user_transactions", "user_id"),
    "history": ("list_wallet_entries", "user_id"),
    "earn": ("create_user_transaction", "user_id"),
    "request": ("request_user_payout", "user_id"),
}


class UserApi:
    """The operations on users and their wallets."""

    def __init__(self, users: UserService) -> None:
        self._users = users

    def _check(self, fields: Mapping[str, Any]) -> Sequence[FieldProblem]:
        return self._users.check(fields)

    @post(
        "/api/v1/users",
        "Create a user with a wallet",
        {201: User},
        CreateUserBody,
        links=_LINKS,
        errors=("DUPLICATE_REFERENCE",),
        example=_EXAMPLE,
        check=_check,
        psp=either("users create {name} --external-id {external_id} --vendor-user-id {vendor_user_id}", *_PSP_DESTINATIONS),
    )
    async def create_user(self, request: Request, body: CreateUserBody) -> CommandResult:
        return await self._users.create(request.context, body)

    @post(
        "/api/v1/users/batch",
        "Create up to 1000 users, each independently",
        {200: UserResults},
        CreateUsersBody,
        example={"users": [_EXAMPLE]},
        psp="users batch {users:file=users.csv}",
    )
    async def create_users(self, request: Request, body: CreateUsersBody) -> CommandResult:
        return await self._users.create_many(request.context, body)

    @get(
        "/api/v1/users",
        "List users, newest first",
        {200: list[User]},
        query=(
            *DATED_PAGE,
            parameter("external_id", "Only the user with this external id.", type="string", minLength=1, maxLength=64),
            parameter(
                "q",
                "Only users that this text finds. First those that it identifies, however old they are: by external id or "
                "by the beginning of the id. Then those whose name, external id or id contains it. Both are newest first. A "
                f"page that has searched {MAX_SCANNED} users ends there, even if it is empty; the next page continues.",
                type="string",
                minLength=1,
                maxLength=100,
            ),
        ),
        psp="users list --search {q}",
        columns="external_id id name vendor_user_id created_at",
    )
    async def list_users(self, request: Request) -> Page:
        return await self._users.list(request.merchant_id, window(request.query), request.query)

    @get("/api/v1/users/{user_id}", "Get a user", {200: User}, psp="users get")
    async def get_user(self, request: Request, user_id: Uuid) -> User:
        return await self._users.get(request.merchant_id, user_id)

    @patch(
        "/api/v1/users/{user_id}",
        "Change a user",
        {200: User},
        ChangeUserBody,
        errors=("DUPLICATE_REFERENCE",),
        example={"destination": _EXAMPLE["destination"]},
        check=_check,
        description="Payouts already requested keep their destination. Later payments for sales use the new one.",
        psp=either("users change {user_id} --name {name} --external-id {external_id}", *_PSP_DESTINATIONS),
    )
    async def change_user(self, request: Request, body: ChangeUserBody, user_id: Uuid) -> CommandResult:
        return await self._users.change(request.context, user_id, body)

    @post(
        "/api/v1/users/{user_id}/transactions",
        "Record what a user earned or spent",
        {201: Transaction},
        CreateTransactionBody,
        example={"type": "EARNED", "amount": "1000.00"},
        psp="users record",
    )
    async def create_user_transaction(self, request: Request, body: CreateTransactionBody, user_id: Uuid) -> CommandResult:
        amount = amount_of(body.amount)
        return await self._users.record(request.context, user_id, body.type, amount, body.reference)

    @get(
        "/api/v1/users/{user_id}/transactions",
        "List a user's transactions, newest first",
        {200: list[Transaction]},
        query=(
            *DATED_PAGE,
            parameter("type", "Only transactions of this type.", type="string", enum=list(TRANSACTION_TYPES)),
        ),
        description="All types: earned, spent, credited in bulk, paid for sales (a negative FINAL is a claw-back), requested "
        "(PAYOUT) and paid (PAID_OUT). A payout that ends unpaid adds transactions with negative amounts.",
        psp="users transactions",
        columns="created_at type amount reference payout_id transfer_id",
    )
    async def list_user_transactions(self, request: Request, user_id: Uuid) -> Page:
        types = selected(request.query, "type", TRANSACTION_TYPES)
        return await self._users.transactions(request.merchant_id, user_id, window(request.query), types)

    @get(
        "/api/v1/users/{user_id}/history",
        "List the ledger entries of a user's wallet, newest first",
        {200: list[LedgerEntry]},
        query=(
            *DATED_PAGE,
            parameter("payout_id", "Only entries for this payout.", type="string", format="uuid"),
        ),
        description="`balance_after` of the newest entry is the wallet's balance.",
        psp="users history",
        columns="created_at reason direction amount balance_after payout_id transfer_id",
    )
    async def list_wallet_entries(self, request: Request, user_id: Uuid) -> Page:
        payout_id = request.query.get("payout_id")
        return await self._users.history(request.merchant_id, user_id, window(request.query), payout_id)

    @get(
        "/api/v1/users/{user_id}/summary",
        "Get the totals of a user's wallet",
        {200: Summary},
        description="Cached for two minutes, or until a change. The `X-Cache` response header is HIT or MISS.",
        psp="users summary",
    )
    async def get_user_summary(self, request: Request, user_id: Uuid) -> Response:
        summary, is_cached = await self._users.summary(request.merchant_id, user_id)
        return Response(200, summary, headers=[("x-cache", "HIT" if is_cached else "MISS")])

    @get("/api/v1/users/{user_id}/balance", "Get the balance of a user's wallet", {200: UserBalance}, psp="users balance")
    async def get_user_balance(self, request: Request, user_id: Uuid) -> UserBalance:
        return await self._users.balance(request.merchant_id, user_id)

    @post(
        "/api/v1/users/{user_id}/payout",
        "Request a payout to a user's destination",
        {201: Payout},
        RequestPayoutBody,
        errors=("INVALID_STATE", "INSUFFICIENT_BALANCE"),
        example={"amount": "30.00"},
        description="The payout stays in REQUESTED until an admin approves or rejects it. Both the user's and the merchant's "
        "available balance must cover it; an error says which one is too low. Until then, the amount is locked in the "
        "merchant's balance.",
        psp="users request",
    )
    async def request_user_payout(self, request: Request, body: RequestPayoutBody, user_id: Uuid) -> CommandResult:
        return await self._users.request_payout(request.context, user_id, amount_of(body.amount))

    @get(
        "/api/v1/payouts/requests",
        "List users with payout requests waiting for approval",
        {200: list[RequestedTotal]},
        query=PAGE,
        psp="payouts requests",
        columns="user_id total_requested",
    )
    async def list_payout_requests(self, request: Request) -> Page:
        return await self._users.requests(request.merchant_id, window(request.query))
