"""Create, read and change users; record their transactions, request their payouts and return their totals."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET

from sandbox.domain.clock import render
from sandbox.domain.errors import Problem
from sandbox.domain.fields import results_of
from sandbox.domain.money import CURRENCY
from sandbox.domain.unit import IDS_PER_PAYOUT, CommandResult, RequestContext, UnitOfWork
from sandbox.domain.user import COLUMNS, UserRow, to_user
from sandbox.http.body import decode, decode_items
from sandbox.http.body_errors import FieldProblem
from sandbox.http.paging import Page, PageWindow, page
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.large_work import LARGE_BATCH, READS, compute
from sandbox.payouts.directory.banks_and_wallets import Directory
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.users.commands import RecordTransaction, RequestPayout
from sandbox.users.creation import insert_users
from sandbox.users.history import transactions, wallet_entries
from sandbox.users.requests import (
    ChangeUserBody,
    CreateUserBody,
    CreateUsersBody,
    DestinationBody,
    NewUser,
    new_user,
    user_codes,
    user_errors,
)
from sandbox.users.search import BY_EXTERNAL_ID, LIST, search_users
from sandbox.users.summary_cache import CacheMiss, SummaryCache

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_SQL: Final = read_statements(__name__, columns=COLUMNS)
_GET: Final = _SQL["get"]
_HAS_EXTERNAL_ID: Final = _SQL["has_external_id"]

_SUMS: Final = ("earned", "spent", "credited", "advances", "finals", "requested", "approved", "paid")

_CHANGE: Final = _SQL["change"]
_REQUESTS: Final = _SQL["requests"]


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


class Summary(msgspec.Struct):
    """The totals of a user's wallet.

    `balance` = earned + credited + advances + finals − spent − payout_approved − payout_paid. `available` = balance −
    payout_requested: the amount that can still be paid out.
    """

    user_id: str
    currency: str
    balance: Decimal
    earned: Decimal
    spent: Decimal
    credited: Decimal
    advances: Decimal
    finals: Decimal
    payout_requested: Decimal
    payout_approved: Decimal
    payout_paid: Decimal
    available: Decimal


class CreatedUser(msgspec.Struct):
    """The result of a batch item that was created."""

    status: Literal[201]
    user: User


class UserResults(msgspec.Struct):
    """The result of each item of a batch, in order."""

    results: Annotated[list[CreatedUser], results_of("CreatedUser", 1000)]


class UserBalance(msgspec.Struct):
    """The balance of a user's wallet, and the part of it that can still be paid out."""

    user_id: str
    balance: Decimal
    available: Decimal


class RequestedTotal(msgspec.Struct):
    """A user with payout requests waiting for approval."""

    user_id: str
    total_requested: Decimal


class UserService:
    """The operations on users and their wallets."""

    def __init__(self, work: UnitOfWorkRunner, directory: Directory, cache: SummaryCache) -> None:
        self._work = work
        self._directory = directory
        self._cache = cache
        self._item_decoder = msgspec.json.Decoder(CreateUserBody)

    def check(self, fields: Mapping[str, Any]) -> list[FieldProblem]:
        """Return the validation errors in a user's body that its schema cannot express."""
        return user_errors(fields, self._directory)

    async def create(self, context: RequestContext, body: CreateUserBody) -> CommandResult:
        """Create a user with an empty wallet: 201 with the user. Returns 409 if an id is taken; raises VALIDATION_ERROR."""
        new = new_user(body, self._directory)

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            (result,) = await insert_users(conn, unit, [new])
            if isinstance(result, Problem):
                raise result
            user = _new_user(*result, unit)
            return CommandResult(201, msgspec.json.encode(user), f"/api/v1/users/{user.id}")

        return await self._work.run(context, action)

    async def create_many(self, context: RequestContext, body: CreateUsersBody) -> CommandResult:
        """Create up to 1000 users independently: 200 with the result of each, in order."""

        def read(raw: bytes) -> NewUser:
            return new_user(decode(self._item_decoder, raw, self.check), self._directory)

        items = await compute(
            context.merchant_id, lambda: decode_items("users", body.users, read), is_large=len(body.users) > LARGE_BATCH
        )

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
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

    async def get(self, merchant_id: str, user_id: str) -> User:
        """Return a user. Raises NOT_FOUND."""
        return _user(await self._row(merchant_id, user_id))

    async def change(self, context: RequestContext, user_id: str, body: ChangeUserBody) -> CommandResult:
        """Change the fields that the body contains: 200 with the user.

        Payouts that were requested before keep their destination. Returns 404 for an unknown user, 409 if another user has
        the external_id. Raises NOT_FOUND if the id is malformed, VALIDATION_ERROR if the destination is invalid.
        """
        where = body.destination
        codes = user_codes(where, self._directory) if isinstance(where, DestinationBody) else (None, None)

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            record = await conn.fetchrow(_GET, context.merchant_id, user_id)
            if record is None:
                raise _not_found(user_id)
            user = to_user(record)
            if body.name is not UNSET:
                user.name = body.name
            if body.external_id is not UNSET:
                user.external_id = body.external_id
                if await conn.fetchval(_HAS_EXTERNAL_ID, context.merchant_id, user.external_id, user_id):
                    raise Problem("DUPLICATE_REFERENCE", f"Another user already has the external_id {user.external_id!r}.")
            if where is not UNSET:
                user.dest_type, user.account_number = (None, None) if where is None else (where.dest_type, where.account_number)
                user.bank_code, user.wallet_code = codes
            record = await conn.fetchrow(
                _CHANGE, unit.merchant_id, user_id, user.name, user.external_id, user.dest_type, user.bank_code,
                user.wallet_code, user.account_number, unit.now,
            )  # fmt: skip
            assert record is not None
            return CommandResult(200, msgspec.json.encode(_user(to_user(record))))

        return await self._work.run(context, action)

    async def list(self, merchant_id: str, window: PageWindow, filters: Mapping[str, str]) -> Page:
        """Return a page of users, newest first. `filters` may have q and external_id, which at most one user has."""
        external_id = filters.get("external_id")
        if text := filters.get("q", "").strip():
            async with READS.place(merchant_id):
                matching = await search_users(merchant_id, window, text, external_id)
            return Page([_user(row) for row in matching.data], matching.has_more, matching.next_cursor)
        statement, extra = (LIST, []) if external_id is None else (BY_EXTERNAL_ID, [external_id])
        async with connection(merchant_id) as conn:
            records = await conn.fetch(statement, merchant_id, window.before, window.since, window.limit + 1, *extra)
        found = [_user(to_user(record)) for record in records]
        return page(found, window.limit, [user.id for user in found])

    async def record(
        self,
        context: RequestContext,
        user_id: str,
        kind: str,
        amount: Decimal,
        reference: str | None,
    ) -> CommandResult:
        """Record what a user earned or spent. Raises NOT_FOUND if the id is malformed; other refusals are returned."""
        return await self._work.submit(RecordTransaction(context, user_id, kind, amount, reference))

    async def transactions(self, merchant_id: str, user_id: str, window: PageWindow, types: Sequence[str]) -> Page:
        """Return a page of a user's transactions of these types, newest first. Raises NOT_FOUND."""
        await self._row(merchant_id, user_id)
        return await transactions(merchant_id, user_id, window, types)

    async def history(self, merchant_id: str, user_id: str, window: PageWindow, payout_id: str | None) -> Page:
        """Return a page of a wallet's ledger entries, newest first; with a `payout_id`, only its entries. Raises NOT_FOUND."""
        await self._row(merchant_id, user_id)
        return await wallet_entries(merchant_id, user_id, window, payout_id)

    async def request_payout(self, context: RequestContext, user_id: str, amount: Decimal) -> CommandResult:
        """Request a payout to the user's destination. Raises NOT_FOUND if the id is malformed; other refusals are returned."""
        return await self._work.submit(RequestPayout(context, user_id, amount))

    async def balance(self, merchant_id: str, user_id: str) -> UserBalance:
        """Return a user's balance as of the last commit. Raises NOT_FOUND."""
        user = await self._row(merchant_id, user_id)
        return UserBalance(user.id, user.balance, user.available)

    async def summary(self, merchant_id: str, user_id: str) -> tuple[bytes, bool]:
        """Return a user's summary as JSON, and whether it came from the cache. Raises NOT_FOUND."""
        cached = await self._cache.get(merchant_id, user_id)
        if isinstance(cached, bytes):
            return cached, True
        user = await self._row(merchant_id, user_id)
        summary = msgspec.json.encode(_summary(user))
        if isinstance(cached, CacheMiss):
            await self._cache.fill(merchant_id, user_id, cached, user.version, summary)
        return summary, False

    async def requests(self, merchant_id: str, window: PageWindow) -> Page:
        """Return a page of the users with payout requests waiting for approval, newest user first."""
        async with connection(merchant_id) as conn:
            records = await conn.fetch(_REQUESTS, merchant_id, window.before, window.limit + 1)
        found = [RequestedTotal(record["user_id"], record["requested"]) for record in records]
        return page(found, window.limit, [request.user_id for request in found])

    async def _row(self, merchant_id: str, user_id: str) -> UserRow:
        async with connection(merchant_id) as conn:
            record = await conn.fetchrow(_GET, merchant_id, user_id)
        if record is None:
            raise _not_found(user_id)
        return to_user(record)


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


def _summary(user: UserRow) -> Summary:
    return Summary(
        user_id=user.id,
        currency=CURRENCY,
        balance=user.balance,
        earned=user.earned,
        spent=user.spent,
        credited=user.credited,
        advances=user.advances,
        finals=user.finals,
        payout_requested=user.requested,
        payout_approved=user.approved,
        payout_paid=user.paid,
        available=user.available,
    )
