"""Bulk credits: take a file in, tell how it stands, try again what failed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec
from piccolo.columns import Column
from piccolo.query.methods.select import First
from piccolo.query.methods.update import Update

from sandbox.bulk_credit.tables import BulkCredits
from sandbox.bulk_credit.upload import Upload
from sandbox.db.engine import connection, db_errors_as_503
from sandbox.domain.bulk_credit import ITEM_STATUSES, PROCESSING, UPLOADED, Accepted, Activity, Item, to_activity
from sandbox.domain.bulk_credit_csv import DUPLICATE, INVALID, Row, read_rows
from sandbox.domain.errors import Problem, unavailable
from sandbox.domain.idempotency import lookup
from sandbox.domain.ids import is_uuid
from sandbox.domain.unit import CommandResult, Effect, RequestContext, UnitOfWork
from sandbox.http.paging import Page, page
from sandbox.unit_of_work.claim import Claim
from sandbox.unit_of_work.runner import UnitsOfWork

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_COPY_SECONDS: Final = 300.0
_LINES_AT_ONCE: Final = 500
_AT_ONCE: Final = 2
"""Files of this process taken in at a time: each holds a connection, and some 100 MB if it has a million rows."""
_WAIT_SECONDS: Final = 30

_ITEM: Final = "line, user_id AS uuid, amount, status, error, transfer_id::text AS transfer_id"
# Each status is a range of one index in the order of lines: a page reads at most 5 × limit rows.
_ITEMS: Final = f"""
SELECT i.* FROM unnest($3::text[]) AS s (status) CROSS JOIN LATERAL (
    SELECT {_ITEM} FROM bulk_credit_items WHERE merchant_id = $1 AND activity_id = $2 AND status = s.status AND line > $4
    ORDER BY merchant_id, activity_id, bulk_credit_items.status, line LIMIT $5
) i ORDER BY line LIMIT $5
"""  # noqa: S608 -- constants
_RETRY_ITEMS: Final = """
UPDATE bulk_credit_items SET status = 'PENDING', error = NULL
WHERE merchant_id = $1 AND activity_id = $2 AND status = 'FAILED'
"""


class BulkCreditService:
    """What the API offers of bulk credits."""

    def __init__(self, work: UnitsOfWork) -> None:
        self._work = work
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def upload(self, context: RequestContext, upload: Upload) -> CommandResult:
        """Take a file in: 202 with the activity. Its rows, its counts and the key commit together.

        Raises VALIDATION_ERROR for a file without its header, PAYLOAD_TOO_LARGE for one with too many rows, UNAVAILABLE if
        others take too long before it.
        """
        async with db_errors_as_503():
            activity_id, now, stored = await self._begin(context)
            if stored is not None:
                return stored
            async with self._turn():
                return await self._store(context, activity_id, now, upload)

    async def get(self, merchant_id: str, activity_id: str) -> Activity:
        """A bulk credit as it stands. Raises NOT_FOUND."""
        _require_id(activity_id)
        async with db_errors_as_503():
            record = await _one(merchant_id, activity_id)
        if record is None:
            raise _not_found(activity_id)
        return to_activity(record)

    async def items(self, merchant_id: str, activity_id: str, limit: int, behind: int, status: str | None) -> Page:
        """A page of a bulk credit's rows in the file's order, those behind a line. Raises NOT_FOUND."""
        await self.get(merchant_id, activity_id)
        statuses = ITEM_STATUSES if status is None else [status]
        async with db_errors_as_503(), connection() as conn:
            records = await conn.fetch(_ITEMS, merchant_id, activity_id, statuses, behind, limit + 1)
        found = [Item(**dict(record)) for record in records]
        return page(found, limit, [line_position(item.line) for item in found])

    async def retry(self, context: RequestContext, activity_id: str) -> CommandResult:
        """Try again what failed: 202 with the activity; 404, or 409 NOT_RETRYABLE if nothing did, are answers."""
        _require_id(activity_id)

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            record = await _one(unit.merchant_id, activity_id)
            if record is None:
                raise _not_found(activity_id)
            if record["status"] in (UPLOADED, PROCESSING):
                raise Problem("NOT_RETRYABLE", f"The activity is {record['status']}; wait until it is done.")
            if not record["failed"]:
                raise Problem("NOT_RETRYABLE", f"The activity is {record['status']}, and none of its rows failed.")
            await conn.execute(_RETRY_ITEMS, unit.merchant_id, activity_id)
            await _retry(unit.merchant_id, activity_id, unit.now)
            unit.effects.add(Effect.BULK_CREDIT_WAITS)
            return CommandResult(202, msgspec.json.encode(Accepted(activity_id, PROCESSING)))

        return await self._work.run(context, action)

    async def _begin(self, context: RequestContext) -> tuple[str, datetime, CommandResult | None]:
        """An id for the activity and the merchant's now, and what the key was answered before, if it was."""
        assert context.key is not None, "uploads need one"

        async def begin(_: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> tuple[str, datetime, CommandResult | None]:
            return unit.ids.next(), unit.now, lookup(unit, context)

        return await self._work.decide(Claim(context.merchant_id, keys=(context.key.key,)), begin)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise unavailable("Too many files are uploaded at the same time. Nothing was done: retry.", 10) from None
        try:
            yield
        finally:
            self._turns.release()

    async def _store(self, context: RequestContext, activity_id: str, now: datetime, upload: Upload) -> CommandResult:
        counts: Counter[str] = Counter()
        prefix = f"{context.merchant_id}\t{activity_id}\t"

        async def copied() -> AsyncIterator[bytes]:
            rows = read_rows(upload.file)
            while lines := list(islice(rows, _LINES_AT_ONCE)):
                part = [row for row in lines if row is not None]
                counts["total"] += len(part)
                counts.update(row.status for row in part)
                yield "".join(_copied(prefix, row) for row in part).encode()
                await asyncio.sleep(0)  # others of this process have their turn

        async def copy(conn: "PoolConnectionProxy[Any]") -> None:
            # Before the merchant's lock is taken, so that nobody waits for the file.
            if counts:  # the transaction is repeated
                upload.file.seek(0)
                counts.clear()
            await BulkCredits.insert(_uploaded(context.merchant_id, activity_id, context.request_id, now))
            # As text, which the driver passes on as it is: encoding a row would take longer than all the rest.
            await conn.copy_to_table(
                "bulk_credit_items",
                source=copied(),
                columns=["merchant_id", "activity_id", "line", "user_id", "amount", "status", "error"],
                timeout=_COPY_SECONDS,
            )
            await _count(context.merchant_id, activity_id, counts)

        async def accept(_: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            unit.effects.add(Effect.BULK_CREDIT_WAITS)
            accepted = Accepted(activity_id, UPLOADED)
            return CommandResult(202, msgspec.json.encode(accepted), f"/api/v1/wallet/bulk-credit/{activity_id}")

        return await self._work.run_part(context, accept, prepare=copy)


def _one(merchant_id: str, activity_id: str) -> First:
    return BulkCredits.select().where(BulkCredits.merchant_id == merchant_id, BulkCredits.id == activity_id).first()


def _retry(merchant_id: str, activity_id: str, now: datetime) -> Update[BulkCredits]:
    b = BulkCredits
    values: dict[Column | str, Any] = {b.status: PROCESSING, b.failed: 0, b.completed_at: None, b.updated_at: now}
    return b.update(values).where(b.merchant_id == merchant_id, b.id == activity_id)


def _count(merchant_id: str, activity_id: str, counts: Mapping[str, int]) -> Update[BulkCredits]:
    b = BulkCredits
    values: dict[Column | str, Any] = {b.total: counts["total"], b.invalid: counts[INVALID], b.duplicates: counts[DUPLICATE]}
    return b.update(values).where(b.merchant_id == merchant_id, b.id == activity_id)


def _uploaded(merchant_id: str, activity_id: str, request_id: str, now: datetime) -> BulkCredits:
    return BulkCredits(
        merchant_id=merchant_id,
        id=activity_id,
        status=UPLOADED,
        total=0,
        invalid=0,
        duplicates=0,
        succeeded=0,
        failed=0,
        request_id=request_id,
        created_at=now,
        updated_at=now,
    )


def line_position(line: int) -> str:
    """A line as a list's cursor has it: in the form of an id."""
    text = f"{line:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def position_line(position: str) -> int:
    """The line that a cursor stands for; beyond the last one for a cursor of another list."""
    return min(int(position.replace("-", ""), 16), 2**31 - 1)


def _copied(prefix: str, row: Row) -> str:
    """A row in COPY's text format, https://www.postgresql.org/docs/current/sql-copy.html."""
    error = "\\N" if row.error is None else row.error
    if row.status == INVALID:
        # Only here is anything but digits, hyphens and our own words; what cannot be printed, as tabs, is none of it either.
        return f"{prefix}{row.line}\t{_escaped(row.user_id)}\t{_escaped(row.amount)}\t{row.status}\t{error}\n"
    return f"{prefix}{row.line}\t{row.user_id}\t{row.amount}\t{row.status}\t{error}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\")


def _require_id(activity_id: str) -> None:
    if not is_uuid(activity_id):
        raise Problem("NOT_FOUND", "There is no such bulk credit; an activity's id is a lowercase UUID.")


def _not_found(activity_id: str) -> Problem:
    return Problem("NOT_FOUND", f"There is no bulk credit {activity_id}.")
