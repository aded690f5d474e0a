"""Create, read and change users; record their transactions, request their payouts and return their totals."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET

from sandbox.domain.clock import render
from sandbox.domain.errors import Problem
from sandbox.domain.fields import Uuid, results_of
from sandbox.domain.payout import Payout
from sandbox.domain.unit import IDS_PER_PAYOUT, CommandResult, RequestContext, UnitOfWork
from sandbox.domain.user import COLUMNS, UserRow, to_user
from sandbox.http.body import amount_of, decode, decode_items
from sandbox.http.body_errors import FieldProblem
from sandbox.http.operation import DATED_PAGE, PAGE, either, get, parameter, patch, post
from sandbox.http.paging import MAX_SCANNED, Page, PageWindow, page
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.large_work import LARGE_BATCH, READS, compute
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.users.commands import RecordTransaction, RequestPayout, Transaction
from sandbox.users.creation import insert_users
from sandbox.users.requests import (
    ChangeUserBody,
    CreateTransactionBody,
    CreateUserBody,
    CreateUsersBody,
    DestinationBody,
    NewUser,
    RequestPayoutBody,
    new_user,
    user_codes,
    user_errors,
)
from sandbox.users.search import BY_EXTERNAL_ID, LIST, search_users

_SQL: Final = read_statements(__name__, columns=COLUMNS)


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


class Destination(msgspec.Struct):
    """Where a user's payouts go."""

    dest_type: str
    bank_code: str | None
    wallet_code: str | None
    account_number: str


class User(msgspec.Struct):
    """A user of a merchant, with a wallet."""

    id: str
    name: str
    external_id: str | None
    vendor_user_id: str
    destination: Destination | None
    created_at: str


class CreatedUser(msgspec.Struct):
    """The result of a batch item that was created."""

    status: Literal[201]
    user: User


class UserResults(msgspec.Struct):
    """The result of each item of a batch, in order."""

    results: Annotated[list[CreatedUser], results_of("CreatedUser", 1000)]


class RequestedTotal(msgspec.Struct):
    """A user with payout requests waiting for approval."""

    user_id: str
    total_requested: Decimal


async def read_user(merchant_id: str, user_id: str) -> UserRow:
    """Return a user with the totals of the wallet. Raises NOT_FOUND."""
    async with connection(merchant_id) as conn:
        record = await conn.fetchrow(_SQL["get"], merchant_id, user_id)
    if record is None:
        raise _not_found(user_id)
    return to_user(record)


class UserService:
    """The operations on users and their wallets."""

    def __init__(self, work: UnitOfWorkRunner, directory: Directory) -> None:
        self._work = work
        self._directory = directory
        self._item_decoder = msgspec.json.Decoder(CreateUserBody)

    def _check(self, fields: Mapping[str, Any]) -> list[FieldProblem]:
        """Return the validation errors in a user's body that its schema cannot express."""
        return user_errors(fields, self._directory)

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
    async def create_user(self, context: RequestContext, body: CreateUserBody) -> CommandResult:
        """Create a user with an empty wallet: 201 with the user. Returns 409 if an id is taken; raises VALIDATION_ERROR."""
        new = new_user(body, self._directory)

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            (result,) = await insert_users(conn, unit, [new])
            if isinstance(result, Problem):
                raise result
            user = _new_user(*result, unit)
            return CommandResult(201, msgspec.json.encode(user), f"/api/v1/users/{user.id}")

        return await self._work.run(context, action)

    @post(
        "/api/v1/users/batch",
        "Create up to 1000 users, each independently",
        {200: UserResults},
        CreateUsersBody,
        example={"users": [_EXAMPLE]},
        psp="users batch {users:file=users.csv}",
    )
    async def create_users(self, context: RequestContext, body: CreateUsersBody) -> CommandResult:
        """Create up to 1000 users independently: 200 with the result of each, in order."""

        def read(raw: bytes) -> NewUser:
            return new_user(decode(self._item_decoder, raw, self._check), self._directory)

        items = await compute(
            context.merchant_id, lambda: decode_items("users", body.users, read), is_large=len(body.users) > LARGE_BATCH
        )

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            results: list[dict[str, object]] = []
            for result in await insert_users(conn, unit, items):
                if isinstance(result, Problem):
                    problem = result.body(context.public_url, context.path, context.request_id)
                    results.append({"status": result.status, "problem": msgspec.Raw(problem)})
                else:
                    results.append({"status": 201, "user": _new_user(*result, unit)})
            return CommandResult(200, msgspec.json.encode({"results": results}))

        # Reserve an id for each user.
        return await self._work.run(context, action, weight=len(items) // IDS_PER_PAYOUT + 1)

    @get("/api/v1/users/{user_id}", "Get a user", {200: User}, psp="users get")
    async def get_user(self, merchant_id: str, user_id: Uuid) -> User:
        """Return a user. Raises NOT_FOUND."""
        return _user(await read_user(merchant_id, user_id))

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
    async def change_user(self, context: RequestContext, user_id: Uuid, body: ChangeUserBody) -> CommandResult:
        """Change the fields that the body contains: 200 with the user.

        Payouts that were requested before keep their destination. Returns 404 for an unknown user, 409 if another user has
        the external_id. Raises NOT_FOUND if the id is malformed, VALIDATION_ERROR if the destination is invalid.
        """
        where = body.destination
        codes = user_codes(where, self._directory) if isinstance(where, DestinationBody) else (None, None)

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            record = await conn.fetchrow(_SQL["get"], context.merchant_id, user_id)
            if record is None:
                raise _not_found(user_id)
            user = to_user(record)
            if body.name is not UNSET:
                user.name = body.name
            if body.external_id is not UNSET:
                user.external_id = body.external_id
                if await conn.fetchval(_SQL["has_external_id"], context.merchant_id, user.external_id, user_id):
                    raise Problem("DUPLICATE_REFERENCE", f"Another user already has the external_id {user.external_id!r}.")
            if where is not UNSET:
                user.dest_type, user.account_number = (None, None) if where is None else (where.dest_type, where.account_number)
                user.bank_code, user.wallet_code = codes
            record = await conn.fetchrow(
                _SQL["change"], unit.merchant_id, user_id, user.name, user.external_id, user.dest_type, user.bank_code,
                user.wallet_code, user.account_number, unit.now,
            )  # fmt: skip
            assert record is not None
            return CommandResult(200, msgspec.json.encode(_user(to_user(record))))

        return await self._work.run(context, action)

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
    async def list_users(self, merchant_id: str, window: PageWindow, query: Mapping[str, str]) -> Page:
        """Return a page of users, newest first. `query` may have q and external_id, which at most one user has."""
        external_id = query.get("external_id")
        if text := query.get("q", "").strip():
            async with READS.place(merchant_id):
                matching = await search_users(merchant_id, window, text, external_id)
            return Page([_user(row) for row in matching.data], matching.has_more, matching.next_cursor)
        statement, extra = (LIST, []) if external_id is None else (BY_EXTERNAL_ID, [external_id])
        async with connection(merchant_id) as conn:
            records = await conn.fetch(statement, merchant_id, window.before, window.since, window.limit + 1, *extra)
        found = [_user(to_user(record)) for record in records]
        return page(found, window.limit, [user.id for user in found])

    @post(
        "/api/v1/users/{user_id}/transactions",
        "Record what a user earned or spent",
        {201: Transaction},
        CreateTransactionBody,
        example={"type": "EARNED", "amount": "1000.00"},
        psp="users record",
    )
    async def create_user_transaction(
        self, context: RequestContext, body: CreateTransactionBody, user_id: Uuid
    ) -> CommandResult:
        """Record what a user earned or spent. Raises VALIDATION_ERROR for the amount; other refusals are returned."""
        amount = amount_of(body.amount)
        return await self._work.submit(RecordTransaction(context, user_id, body.type, amount, body.reference))

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
    async def request_user_payout(self, context: RequestContext, body: RequestPayoutBody, user_id: Uuid) -> CommandResult:
        """Request a payout to the user's destination. Raises VALIDATION_ERROR for the amount; other refusals are returned."""
        return await self._work.submit(RequestPayout(context, user_id, amount_of(body.amount)))

    @get(
        "/api/v1/payouts/requests",
        "List users with payout requests waiting for approval",
        {200: list[RequestedTotal]},
        query=PAGE,
        psp="payouts requests",
        columns="user_id total_requested",
    )
    async def list_payout_requests(self, merchant_id: str, window: PageWindow) -> Page:
        """Return a page of the users with payout requests waiting for approval, newest user first."""
        async with connection(merchant_id) as conn:
            records = await conn.fetch(_SQL["requests"], merchant_id, window.before, window.limit + 1)
        found = [RequestedTotal(record["user_id"], record["requested"]) for record in records]
        return page(found, window.limit, [request.user_id for request in found])


def _not_found(user_id: str) -> Problem:
    return Problem("NOT_FOUND", f"User {user_id} not found.")


def _new_user(user_id: str, new: NewUser, unit: UnitOfWork) -> User:
    return User(user_id, new.name, new.external_id, new.vendor_user_id or user_id, _destination(new), unit.now_text)


def _user(row: UserRow) -> User:
    return User(row.id, row.name, row.external_id, row.vendor_user_id, _destination(row), render(row.created_at))


def _destination(user: NewUser | UserRow) -> Destination | None:
    if user.dest_type is None or user.account_number is None:
        return None
    return Destination(user.dest_type, user.bank_code, user.wallet_code, user.account_number)
