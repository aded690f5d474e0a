"""Accept bulk credit files, report their progress, and retry failed rows."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Final

import msgspec

from sandbox.domain.bulk_credit import COLUMNS, ITEM_STATUSES, PROCESSING, UPLOADED, Accepted, Activity, Item, to_activity
from sandbox.domain.errors import Problem
from sandbox.domain.fields import Uuid
from sandbox.domain.idempotency import lookup
from sandbox.domain.unit import CommandResult, Effect, RequestContext, UnitOfWork
from sandbox.http.operation import PAGE, either, get, parameter, post
from sandbox.http.paging import Page, PageWindow, page
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.copy_target import copy_target
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.large_work import Turns, compute
from sandbox.unit_of_work.claim import ClaimRequest
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.users.bulk_credit.csv_rows import INVALID, Row, read_rows
from sandbox.users.bulk_credit.upload import MAX_FORM_SIZE, Upload, UploadForm, receive_file

_COPY_SECONDS: Final = 300.0
_LINES_PER_PART: Final = 500
_CONCURRENT_FILES: Final = 2
"""Maximum number of files that a process stores at the same time. Each needs a connection and, for a million rows, 100 MB."""

_SQL: Final = read_statements(__name__, columns=COLUMNS)
_ITEMS: Final = {False: _SQL["all_items"], True: _SQL["duplicates"]}
"""The statement for rows of a file, by whether only duplicates are listed."""


class RetryBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /wallet/bulk-credit/retry`."""

    activity_id: Uuid


_LINKS: Final = {
    "get": ("get_bulk_credit", "activity_id"),
    "items": ("list_bulk_credit_items", "activity_id"),
}
# Code generators make the same name of two values that differ by case, so the document has each value once.
_STATUS: Final = parameter(
    "status",
    "Only rows with this status, in upper or lower case.",
    type="string",
    enum=list(ITEM_STATUSES),
    **{"x-any-case": True},
)
"""The filter accepts both cases: the counts call rows `invalid`, the list calls them INVALID."""
_DUPLICATES: Final = parameter("duplicates", "Only rows that equal an earlier row.", type="string", enum=["only"])


class BulkCreditService:
    """The operations on bulk credits."""

    def __init__(self, work: UnitOfWorkRunner) -> None:
        self._work = work
        self._turns = Turns(_CONCURRENT_FILES)

    @post(
        "/api/v1/wallet/bulk-credit",
        "Credit many wallets from a CSV file",
        {202: Accepted},
        UploadForm,
        links=_LINKS,
        receive=receive_file,
        body_limit=MAX_FORM_SIZE,
        example={"file": "uuid,amount\n019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77,100.00\n"},
        description="Each row is a credit, and succeeds or fails independently. Rows with the same user and amount are "
        "separate credits; `duplicates` counts those that equal an earlier row. Workers credit the rows in the background: "
        "poll the activity, or subscribe to `bulk_credit.completed`.",
        psp="bulk-credit {*:file=credits.csv}",
    )
    async def upload_bulk_credit(self, context: RequestContext, body: Upload) -> CommandResult:
        """Store a file for the workers to credit: 202 with the activity. Rows, counts and key commit together.

        Raises VALIDATION_ERROR if the file has no header, PAYLOAD_TOO_LARGE if it has too many rows, RATE_LIMITED if
        too many of the merchant's uploads wait.
        """
        with body.file:
            activity_id, now, earlier_result = await self._start(context)
            if earlier_result is not None:
                return earlier_result
            async with self._turns.place(context.merchant_id):
                return await self._store(context, activity_id, now, body)

    @post(
        "/api/v1/wallet/bulk-credit/retry",
        "Retry the rows that failed",
        {202: Accepted},
        RetryBody,
        errors=("NOT_FOUND", "NOT_RETRYABLE"),
        example={"activity_id": "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77"},
        psp="bulk-credit --retry! {activity_id}",
    )
    async def retry_bulk_credit(self, context: RequestContext, body: RetryBody) -> CommandResult:
        """Retry the failed rows: 202 with the activity, 404, or 409 NOT_RETRYABLE if no row failed or some are pending."""
        activity_id = body.activity_id

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            record = await conn.fetchrow(_SQL["get"], unit.merchant_id, activity_id)
            if record is None:
                raise _not_found(activity_id)
            if record["status"] in (UPLOADED, PROCESSING):
                raise Problem("NOT_RETRYABLE", f"The activity is {record['status']}. Wait until it is done, then retry.")
            if not record["failed"]:
                raise Problem("NOT_RETRYABLE", f"The activity is {record['status']} and has no failed rows.")
            await conn.execute(_SQL["retry_items"], unit.merchant_id, activity_id)
            await conn.execute(_SQL["retry"], unit.merchant_id, activity_id, unit.now)
            unit.effects.add(Effect.BULK_CREDIT_PENDING)
            return CommandResult(202, msgspec.json.encode(Accepted(activity_id, PROCESSING)))

        return await self._work.run(context, action)

    @get(
        "/api/v1/wallet/bulk-credit",
        "List bulk credits, newest first",
        {200: list[Activity]},
        query=PAGE,
        psp="bulk-credit --list",
    )
    async def list_bulk_credits(self, merchant_id: str, window: PageWindow) -> Page:
        """Return a page of bulk credits with their current counts, newest first."""
        async with connection(merchant_id) as conn:
            records = await conn.fetch(_SQL["list"], merchant_id, window.before, window.since, window.limit + 1)
        found = [to_activity(record) for record in records]
        return page(found, window.limit, [activity.activity_id for activity in found])

    @get(
        "/api/v1/wallet/bulk-credit/{activity_id}",
        "Get a bulk credit",
        {200: Activity},
        psp="bulk-credit --show! {activity_id}",
    )
    async def get_bulk_credit(self, merchant_id: str, activity_id: Uuid) -> Activity:
        """Return a bulk credit with its current counts. Raises NOT_FOUND."""
        async with connection(merchant_id) as conn:
            record = await conn.fetchrow(_SQL["get"], merchant_id, activity_id)
        if record is None:
            raise _not_found(activity_id)
        return to_activity(record)

    @get(
        "/api/v1/wallet/bulk-credit/{activity_id}/items",
        "List the rows of a bulk credit, in file order",
        {200: list[Item]},
        query=(*PAGE, _STATUS, _DUPLICATES),
        psp=either("bulk-credit --items! {activity_id}", "", "--duplicates duplicates=only"),
    )
    async def list_bulk_credit_items(
        self, merchant_id: str, activity_id: Uuid, window: PageWindow, query: Mapping[str, str]
    ) -> Page:
        """Return a page of a bulk credit's rows, in file order. Raises NOT_FOUND."""
        await self.get_bulk_credit(merchant_id, activity_id)
        statuses = [query["status"].upper()] if "status" in query else ITEM_STATUSES
        after_line = line_from_cursor(window.before) if "cursor" in query else 0
        statement, limit = _ITEMS["duplicates" in query], window.limit + 1
        async with connection(merchant_id) as conn:
            records = await conn.fetch(statement, merchant_id, activity_id, statuses, after_line, limit)
        found = [Item(**dict(record)) for record in records]
        return page(found, window.limit, [line_to_cursor(item.line) for item in found])

    async def _start(self, context: RequestContext) -> tuple[str, datetime, CommandResult | None]:
        """Return a new activity id, the merchant's time, and the result of an earlier request with the same key, if any."""
        assert context.key is not None, "an upload requires an idempotency key"

        async def decide(_: Connection, unit: UnitOfWork) -> tuple[str, datetime, CommandResult | None]:
            return unit.ids.next(), unit.now, lookup(unit, context)

        return await self._work.run_transaction(ClaimRequest(context.merchant_id, keys=(context.key.key,)), decide)

    async def _store(self, context: RequestContext, activity_id: str, now: datetime, upload: Upload) -> CommandResult:
        counts: Counter[str] = Counter()
        prefix = f"{context.merchant_id}\t{activity_id}\t"

        async def copy_lines() -> AsyncIterator[bytes]:
            rows = read_rows(upload.file)

            def next_part() -> bytes | None:
                lines = list(islice(rows, _LINES_PER_PART))
                part = [row for row in lines if row is not None]
                counts["total"] += len(part)
                counts["duplicates"] += sum(row.same_as_line is not None for row in part)
                counts.update(row.status for row in part)
                return "".join(_copy_line(prefix, row) for row in part).encode() if lines else None

            while (part := await compute(context.merchant_id, next_part, is_large=bool(counts))) is not None:
                yield part

        async def copy(conn: Connection) -> None:
            # This runs before the merchant's lock is taken, so that no other request waits for the file.
            if counts:  # the transaction is retried: start over
                upload.file.seek(0)
                counts.clear()
            await conn.execute(_SQL["insert"], context.merchant_id, activity_id, context.request_id, context.traceparent, now)
            table, schema = await copy_target(conn, "bulk_credit_items")
            # COPY as text, which the driver sends unchanged. Encoding records would take longer than everything else.
            await conn.copy_to_table(
                table,
                schema_name=schema,
                source=copy_lines(),
                columns=["merchant_id", "activity_id", "line", "user_id", "amount", "status", "error", "same_as_line"],
                timeout=_COPY_SECONDS,
            )
            await conn.execute(
                _SQL["count"], context.merchant_id, activity_id, counts["total"], counts[INVALID], counts["duplicates"]
            )

        async def accept(_: Connection, unit: UnitOfWork) -> CommandResult:
            unit.effects.add(Effect.BULK_CREDIT_PENDING)
            accepted = Accepted(activity_id, UPLOADED)
            return CommandResult(202, msgspec.json.encode(accepted), f"/api/v1/wallet/bulk-credit/{activity_id}")

        return await self._work.run_with_reserved_key(context, accept, prepare=copy)


def line_to_cursor(line: int) -> str:
    """Return a line number in the form of an id, for a list's cursor."""
    text = f"{line:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def line_from_cursor(position: str) -> int:
    """Return the line number in a cursor. For a cursor of another list, return a line after the last one."""
    return min(int(position.replace("-", ""), 16), 2**31 - 1)


def _copy_line(prefix: str, row: Row) -> str:
    """Return a row in COPY's text format, https://www.postgresql.org/docs/current/sql-copy.html."""
    if row.status == INVALID:
        # Only invalid rows hold text from the file; the parser has replaced control characters such as tabs.
        return f"{prefix}{row.line}\t{_escaped(row.user_id)}\t{_escaped(row.amount)}\t{row.status}\t{row.error}\t\\N\n"
    same_as_line = "\\N" if row.same_as_line is None else row.same_as_line
    return f"{prefix}{row.line}\t{row.user_id}\t{row.amount}\t{row.status}\t\\N\t{same_as_line}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\")


def _not_found(activity_id: str) -> Problem:
    return Problem("NOT_FOUND", f"Bulk credit {activity_id} not found.")
