"""Read aggregated balances, fetches and dead letters; replay dead letters; set the source."""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any, Final

import msgspec
from piccolo.columns import Column
from piccolo.query.methods.select import First
from piccolo.query.methods.update import Update

from sandbox.domain.clock import truncate
from sandbox.domain.errors import Problem, invalid
from sandbox.domain.redaction import Address
from sandbox.domain.shown import shown
from sandbox.domain.unit import CommandResult, RequestContext, UnitOfWork
from sandbox.http.body_errors import FieldProblem
from sandbox.http.operation import DATED_PAGE, PAGE, either, get, post, put
from sandbox.http.paging import Page, PageWindow, page
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.secrets_at_rest import NONCE_SIZE, SecretBox
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.unit_of_work.transaction import write_rows
from sandbox.users.aggregator.requests import SourceBody, VendorUserId
from sandbox.users.aggregator.store import add_rows, lock_cursor, open_headers, seal_headers
from sandbox.users.aggregator.tables import VendorCursors
from sandbox.users.aggregator.vendor_rows import VendorRow, read_row
from sandbox.webhooks.outbound.address_guard import Network
from sandbox.webhooks.outbound.url_check import url_error

_REPLAY_BATCH: Final = 1000

_SQL: Final = read_statements(__name__)
_FROM_THE_BEGINNING: Final[Mapping[Column | str, Any]] = {
    VendorCursors.since: None,
    VendorCursors.page: 1,
    VendorCursors.newest_read: None,
    VendorCursors.sync_started_at: None,
    VendorCursors.last_id: None,
}


class VendorBalance(msgspec.Struct):
    """A user's totals according to the vendor: `balance` = earned − spent − paid_out."""

    user_id: str
    balance: Decimal
    earned: Decimal
    spent: Decimal
    payout: Decimal
    paid_out: Decimal


class UnpaidRequests(msgspec.Struct):
    """The amount that a user has requested but not been paid."""

    user_id: str
    requested_payout: Decimal


class Fetch(msgspec.Struct):
    """A call to the vendor and its outcome: RUNNING, SUCCEEDED or FAILED."""

    id: str
    url: str
    page: int
    at: str
    outcome: str
    status: int | None
    rows: int | None
    new_rows: int | None
    dead_letters: int | None
    duration_ms: int | None
    error: str | None


class DeadLetter(msgspec.Struct):
    """A vendor's row that could not be parsed, as received."""

    id: str
    raw: str
    reason: str
    created_at: str


class Replayed(msgspec.Struct):
    """The number of dead letters that could be parsed this time, and the number that remain."""

    replayed: int
    remaining: int


class Source(msgspec.Struct):
    """The source of transactions. Without a `url`, it is the sandbox's own feed. Header values are not shown."""

    url: Address | None
    header_names: list[str]


class AggregatorService:
    """Reads aggregated data, replays dead letters and sets the source."""

    def __init__(self, work: UnitOfWorkRunner, box: SecretBox, allowed_networks: Sequence[Network]) -> None:
        """`box` seals vendors' headers. `allowed_networks` are the private networks in which vendors are allowed."""
        self._work = work
        self._box = box
        self._allowed = tuple(allowed_networks)

    @get(
        "/aggregator/v1/users/{user_id}",
        "Get a user's balance according to the vendor",
        {200: VendorBalance},
        description="`balance` = earned − spent − paid_out. User ids are strings.",
        psp="aggregator user",
    )
    async def get_vendor_balance(self, merchant_id: str, user_id: VendorUserId) -> VendorBalance:
        """Return a user's balance as of the last page read. Raises NOT_FOUND if the vendor has sent no row for the user."""
        found = await self._user(merchant_id, user_id)
        return VendorBalance(
            user_id=user_id,
            balance=found["earned"] - found["spent"] - found["paid_out"],
            earned=found["earned"],
            spent=found["spent"],
            payout=found["payout"],
            paid_out=found["paid_out"],
        )

    @get(
        "/aggregator/v1/users/{user_id}/payouts",
        "Get the amount a user has requested and not been paid",
        {200: UnpaidRequests},
        description="`requested_payout` = payout − paid_out.",
        psp="aggregator requested",
    )
    async def get_requested_payout(self, merchant_id: str, user_id: VendorUserId) -> UnpaidRequests:
        """Return the amount a user has requested but not been paid. Raises NOT_FOUND as `balance` does."""
        found = await self._user(merchant_id, user_id)
        return UnpaidRequests(user_id, found["payout"] - found["paid_out"])

    async def _user(self, merchant_id: str, user_id: str) -> Mapping[str, Any]:
        record: Mapping[str, Any] | None = None
        if user_id.isprintable():
            async with connection(merchant_id) as conn:
                record = await conn.fetchrow(_SQL["balance"], merchant_id, user_id)
        if record is None:
            raise Problem("NOT_FOUND", "The vendor has sent no transaction for this user.")
        return record

    @get(
        "/aggregator/v1/payouts",
        "List users with requested payouts that have not been paid",
        {200: list[UnpaidRequests]},
        query=PAGE,
        psp="aggregator waiting",
        columns="user_id requested_payout",
    )
    async def list_requested_payouts(self, merchant_id: str, window: PageWindow) -> Page:
        """Return a page of the users with unpaid requests, newest user first."""
        async with connection(merchant_id) as conn:
            records = await conn.fetch(_SQL["list_unpaid"], merchant_id, window.before, window.since, window.limit + 1)
        found = [UnpaidRequests(r["user_id"], r["requested"]) for r in records]
        return page(found, window.limit, [r["id"] for r in records])

    @get(
        "/aggregator/v1/fetches",
        "List the calls to the vendor, newest first",
        {200: list[Fetch]},
        query=DATED_PAGE,
        description="Kept for seven days.",
        psp="aggregator fetches",
        columns="at page outcome status rows new_rows dead_letters duration_ms error",
    )
    async def list_fetches(self, merchant_id: str, window: PageWindow) -> Page:
        """Return a page of calls to the vendor, newest first."""
        async with connection(merchant_id) as conn:
            records = await conn.fetch(_SQL["fetches"], merchant_id, window.before, window.since, window.limit + 1)
        found = [shown(Fetch, r) for r in records]
        return page(found, window.limit, [fetch.id for fetch in found])

    @get(
        "/aggregator/v1/dead-letters",
        "List the vendor's rows that could not be parsed, newest first",
        {200: list[DeadLetter]},
        query=DATED_PAGE,
        psp="aggregator dead-letters",
        columns="id created_at reason raw",
    )
    async def list_dead_letters(self, merchant_id: str, window: PageWindow) -> Page:
        """Return a page of rows that could not be parsed, newest first."""
        async with connection(merchant_id) as conn:
            records = await conn.fetch(_SQL["dead_letters"], merchant_id, window.before, window.since, window.limit + 1)
        found = [shown(DeadLetter, r) for r in records]
        return page(found, window.limit, [letter.id for letter in found])

    @post(
        "/aggregator/v1/dead-letters/replay",
        "Retry all dead letters",
        {200: Replayed},
        description="Rows that can be parsed now are added to the balances, each exactly once.",
        psp="aggregator replay",
    )
    async def replay_dead_letters(self, context: RequestContext) -> CommandResult:
        """Retry all dead letters, and add each valid one to the balances exactly once. Responds with 200 and Replayed."""
        return await self._work.run_idempotent(context, lambda: self._replay(context.merchant_id))

    async def _replay(self, merchant_id: str) -> CommandResult:
        """Retry all dead letters, oldest first, _REPLAY_BATCH in each transaction."""
        replayed, remaining, after = 0, 0, "00000000-0000-0000-0000-000000000000"
        now = truncate(datetime.now(UTC))
        while True:
            letters, parsed = await write_rows(merchant_id, partial(_replay, merchant_id=merchant_id, after=after, now=now))
            replayed += parsed
            remaining += len(letters) - parsed
            if len(letters) < _REPLAY_BATCH:
                return CommandResult(200, msgspec.json.encode(Replayed(replayed, remaining)))
            after = letters[-1]["id"]

    @get("/aggregator/v1/source", "Get the source of transactions", {200: Source}, psp="aggregator source")
    async def get_source(self, merchant_id: str) -> Source:
        """Return the source of the merchant's transactions."""
        async with connection(merchant_id):
            record = await _source(merchant_id)
        if record is None:
            return Source(None, [])
        return Source(record["url"], sorted(open_headers(self._box, merchant_id, record["headers"])))

    def check(self, fields: Mapping[str, Any]) -> list[FieldProblem]:
        """Return the validation errors in the source's fields that its schema cannot express."""
        url = fields.get("url")
        error = None if url is None else _url_error(url, self._allowed)
        return [] if error is None else [("url", error)]

    @put(
        "/aggregator/v1/source",
        "Set the source of transactions",
        {200: Source},
        SourceBody,
        access="admin",
        example={"url": "https://vendor.example/vendor/v1/transactions", "headers": {"X-API-KEY": "the vendor's API key"}},
        check=check,
        description="`url` is the vendor's list of transactions. It is called with `startDate`, `page` and `limit` every "
        "20 seconds, at most 5 times in any 60 seconds. Another URL restarts polling from the beginning and deletes "
        "everything read from the previous one.",
        psp=either("aggregator source", "--set! {url} --header {headers:pairs} headers?={}", "--own url=null headers?={}"),
    )
    async def set_source(self, context: RequestContext, body: SourceBody) -> CommandResult:
        """Set the vendor's URL and headers. Responds with 200 and the Source. Raises VALIDATION_ERROR.

        Changing the URL restarts polling from the beginning and deletes the previous vendor's data, because vendors share
        neither ids nor users. Calls made so far still count towards the rate limit.
        """
        url = body.url
        error = None if url is None else _url_error(url, self._allowed)
        if error is not None:
            raise invalid("url", error)
        stored = {} if url is None else dict(body.headers)
        sealed = None
        if stored:
            sealed = seal_headers(self._box, context.merchant_id, msgspec.json.encode(stored).decode(), os.urandom(NONCE_SIZE))
        now = truncate(datetime.now(UTC))

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            # `run` already holds the merchant's lock. A deletion takes these two locks in the same order.
            record = await lock_cursor(conn, context.merchant_id, now)
            if record is None:
                raise Problem("NOT_FOUND", "This merchant was deleted.")
            if record["url"] == url:
                await _reset_polling(context.merchant_id, now, {VendorCursors.headers: sealed})
            else:
                await conn.execute(_SQL["forget"], context.merchant_id)
                await _reset_polling(
                    context.merchant_id, now, {VendorCursors.headers: sealed, VendorCursors.url: url, **_FROM_THE_BEGINNING}
                )
            return CommandResult(200, msgspec.json.encode(Source(url, sorted(stored))))

        return await self._work.run(context, action)


async def _replay(conn: Connection, merchant_id: str, after: str, now: datetime) -> tuple[Sequence[Mapping[str, Any]], int]:
    """Retry the next batch of dead letters. Return them and the number that could be parsed. Raises NOT_FOUND."""
    if await lock_cursor(conn, merchant_id, now) is None:
        raise Problem("NOT_FOUND", "This merchant was deleted.")
    letters = await conn.fetch(_SQL["to_replay"], merchant_id, after, _REPLAY_BATCH)
    parsed = {letter["id"]: row for letter in letters if (row := _parse(letter["raw"])) is not None}
    if parsed:
        await add_rows(conn, merchant_id, list(parsed.values()), now)
        await conn.execute(
            "DELETE FROM vendor_dead_letters WHERE merchant_id = $1 AND id = ANY ($2::uuid[])", merchant_id, list(parsed)
        )
    return letters, len(parsed)


def _source(merchant_id: str) -> First:
    c = VendorCursors
    return c.select(c.url, c.headers).where(c.merchant_id == merchant_id).first()


def _reset_polling(merchant_id: str, now: datetime, changes: Mapping[Column | str, Any]) -> Update[VendorCursors]:
    c = VendorCursors
    values: dict[Column | str, Any] = {c.failures: 0, c.next_poll_at: now, c.fetch_id: None, c.updated_at: now, **changes}
    return c.update(values).where(c.merchant_id == merchant_id)


def _parse(raw: str) -> VendorRow | None:
    try:
        return read_row(raw.encode())
    except ValueError:
        return None


def _url_error(url: str, allowed_networks: Sequence[Network]) -> str | None:
    if "?" in url or "#" in url:
        return "must have no query string: the sandbox adds its own; send keys in headers"
    return url_error(url, allowed_networks)
