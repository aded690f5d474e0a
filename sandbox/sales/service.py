"""Create, list, reconcile and pay sales."""

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from sandbox.db.cluster import Shard
from sandbox.db.engine import CONNECTION_ERRORS, connection, db_errors_as_503, every_shard
from sandbox.db.rows import by_key, update_by_key
from sandbox.domain.errors import Problem, invalid_fields
from sandbox.domain.ids import MIN_ID, is_uuid
from sandbox.domain.money import ZERO
from sandbox.domain.sale import ADVANCE, COLUMNS, FINAL, PENDING, RunResult, Sale, to_sale
from sandbox.domain.unit import IDS_PER_PAYOUT, CommandResult, RequestContext, UnitOfWork
from sandbox.http.paging import Page, PageWindow, page
from sandbox.infrastructure.metrics import SALE_PAYMENTS, SALES_RUNS, SALES_RUNS_ABORTED
from sandbox.sales.payments import CHUNK, Attempt, add_attempts, pay_chunk
from sandbox.sales.requests import CreateSaleBody, ReconcileItem
from sandbox.sales.tables import Sales
from sandbox.unit_of_work.runner import UnitOfWorkRunner

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_MERCHANTS_PER_PAGE: Final = 500
_CRON: Final = "cron"
"""The request id of scheduled runs."""
_log = structlog.get_logger()

_HAS_USER: Final = f"SELECT true FROM users WHERE {by_key('users', 'id', '$2')}"  # noqa: S608 -- constants
_GET: Final = f"SELECT {COLUMNS} FROM sales WHERE {by_key('sales', 'id', '$2')}"  # noqa: S608 -- constants
# Each status is a range of one index, ordered by id. So a page reads at most 3 × limit rows.
_LIST: Final = f"""
SELECT s.* FROM unnest($2::text[]) AS k (status) CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM sales
    WHERE merchant_id = $1 AND status <> '' AND (status, id) < (k.status, $3::uuid) AND (status, id) >= (k.status, $4::uuid)
    ORDER BY merchant_id DESC, status DESC, sales.id DESC LIMIT $5
) s ORDER BY s.id DESC LIMIT $5
"""  # noqa: S608 -- constants
_LIST_BY_USER: Final = f"""
SELECT s.* FROM unnest($2::text[]) AS k (status) CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM sales
    WHERE merchant_id = $1 AND status <> '' AND (user_id, status, id) < ($6::uuid, k.status, $3::uuid)
        AND (user_id, status, id) >= ($6::uuid, k.status, $4::uuid)
    ORDER BY merchant_id DESC, sales.user_id DESC, status DESC, sales.id DESC LIMIT $5
) s ORDER BY s.id DESC LIMIT $5
"""  # noqa: S608 -- constants
_TO_RECONCILE: Final = f"""
SELECT s.* FROM unnest($2::uuid[]) AS n (id) CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM sales WHERE {by_key("sales", "id", "n.id")} OFFSET 0
) s
"""  # noqa: S608 -- constants
_RECONCILE: Final = update_by_key(
    "sales",
    rows="unnest($3::uuid[], $4::text[]) AS n (id, status)",
    key=("id", "n.id"),
    changes={"status": "n.status", "reconciled_at": "$2", "advance_due": "false", "final_due": "true"},
    kept=("user_id", "brand", "earning", "created_at"),
    where="k.status = 'PENDING'",
)
# One index look-up per merchant whose clock is running. A merchant with a frozen clock starts its runs with an API call.
_MERCHANTS: Final = {
    kind: f"""
    SELECT w.merchant_id::text FROM worlds w WHERE w.merchant_id > $1 AND w.clock_frozen_at IS NULL
        AND (SELECT s.id FROM sales s WHERE s.merchant_id = w.merchant_id AND s.{due} LIMIT 1) IS NOT NULL
    ORDER BY w.merchant_id LIMIT $2
    """  # noqa: S608 -- constants
    for kind, due in ((ADVANCE, "advance_due"), (FINAL, "final_due"))
}


class Reconciled(msgspec.Struct):
    """The reconciled sales, in the order of the request."""

    reconciled: int
    sales: list[Sale]


class _Progress(msgspec.Struct, rename={"last_id": "behind"}):
    """The checkpoint of a run: its result so far. `last_id` is the id of the last sale that was tried."""

    total: RunResult
    last_id: str


_START: Final = _Progress(RunResult(0, 0, ZERO), MIN_ID)


class SalesService:
    """The operations on sales."""

    def __init__(self, work: UnitOfWorkRunner) -> None:
        self._work = work

    async def create(self, context: RequestContext, body: CreateSaleBody, earning: Decimal) -> CommandResult:  # fmt: skip
        """Record a user's sale: 201 with the sale, or 404 for an unknown user."""

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            if not await conn.fetchval(_HAS_USER, unit.merchant_id, body.user_id):
                raise Problem("NOT_FOUND", f"User {body.user_id} not found.")
            sale_id = unit.ids.next()
            row = Sales(
                merchant_id=unit.merchant_id,
                id=sale_id,
                user_id=body.user_id,
                brand=body.brand,
                earning=earning,
                status=PENDING,
                advance_due=True,
                final_due=False,
                created_at=unit.now,
            )
            await Sales.insert(row)
            sale = Sale(sale_id, body.user_id, body.brand, earning, PENDING, None, None, [], 0, None, unit.now_text, None)
            return CommandResult(201, msgspec.json.encode(sale), f"/api/v1/sales/{sale_id}")

        return await self._work.run(context, action)

    async def get(self, merchant_id: str, sale_id: str) -> Sale:
        """Return a sale. Raises NOT_FOUND."""
        if not is_uuid(sale_id):
            raise Problem("NOT_FOUND", "Sale not found; sale ids are lowercase UUIDs.")
        async with db_errors_as_503(), connection(merchant_id) as conn:
            record = await conn.fetchrow(_GET, merchant_id, sale_id)
        if record is None:
            raise Problem("NOT_FOUND", f"Sale {sale_id} not found.")
        return to_sale(record)

    async def list(self, merchant_id: str, window: PageWindow, statuses: Sequence[str], user_id: str | None) -> Page:
        """Return a page of sales, newest first; with a `user_id`, only that user's."""
        statement, extra = (_LIST, []) if user_id is None else (_LIST_BY_USER, [user_id])
        async with db_errors_as_503(), connection(merchant_id) as conn:
            records = await conn.fetch(statement, merchant_id, statuses, window.before, window.since, window.limit + 1, *extra)
        found = [to_sale(record) for record in records]
        return page(found, window.limit, [sale.id for sale in found])

    async def reconcile(self, context: RequestContext, items: Sequence[ReconcileItem]) -> CommandResult:
        """Approve or decline sales, all or none: 200 with the sales.

        Returns 404 if a sale does not exist, 409 if one is already reconciled. Raises VALIDATION_ERROR if one is listed twice.
        """
        verdicts = {item.sale_id: item.status for item in items}
        if len(verdicts) < len(items):
            first = {item.sale_id: index for index, item in reversed([*enumerate(items)])}
            repeated = [index for index, item in enumerate(items) if first[item.sale_id] != index]
            raise invalid_fields(
                [(f"[{index}].sale_id", f"is already listed in [{first[items[index].sale_id]}]") for index in repeated]
            )

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork) -> CommandResult:
            records = await conn.fetch(_TO_RECONCILE, unit.merchant_id, list(verdicts))
            found = {record["id"]: to_sale(record) for record in records}
            for sale_id in verdicts:
                if sale_id not in found:
                    raise Problem("NOT_FOUND", f"Sale {sale_id} not found. No sale was reconciled.")
            for sale_id, sale in found.items():
                if sale.status != PENDING:
                    raise Problem("ALREADY_RECONCILED", f"Sale {sale_id} is already {sale.status}. No sale was reconciled.")
            await conn.execute(_RECONCILE, unit.merchant_id, unit.now, list(verdicts), list(verdicts.values()))
            for sale_id, status in verdicts.items():
                found[sale_id].status, found[sale_id].reconciled_at = status, unit.now_text
            body = Reconciled(len(verdicts), [found[sale_id] for sale_id in verdicts])
            return CommandResult(200, msgspec.json.encode(body))

        return await self._work.run(context, action)

    async def run(self, context: RequestContext, kind: str) -> CommandResult:
        """Pay all due advances (`ADVANCE`) or final payments (`FINAL`): 200 with a RunResult.

        Each chunk is one transaction, which also stores a checkpoint under the idempotency key. If the process dies between two
        chunks, the sales already paid are not paid again. Repeated with the same key, the run resumes, and its result counts
        all chunks.
        """
        attempts: list[Attempt] = []

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, checkpoint: bytes | None) -> CommandResult:
            done = _START if checkpoint is None else msgspec.json.decode(checkpoint, type=_Progress)
            # This may run again after a rollback, so replace the attempts that were rolled back.
            attempts[:], last_id = await pay_chunk(conn, unit, kind, done.last_id, CHUNK)
            total = add_attempts(done.total, attempts)
            if last_id is None:
                return CommandResult(200, msgspec.json.encode(total))
            return CommandResult(200, msgspec.json.encode(_Progress(total, last_id)), provisional=True)

        def on_part(result: CommandResult) -> None:
            _record_attempts(context.merchant_id, kind, attempts)
            attempts.clear()
            if not (result.provisional or result.replayed or result.status >= 400):
                _record_run(context, kind, msgspec.json.decode(result.body, type=RunResult))

        return await self._work.run_resumable(context, action, CHUNK // IDS_PER_PAYOUT + 1, on_part)

    async def run_for_all(self, kind: str) -> None:
        """Run the payments of every merchant whose clock is not frozen. A run that fails is logged; the others continue.

        Raises asyncpg's errors if the merchants cannot be listed; sales paid before that stay paid.
        """
        failed: Exception | None = None
        for shard in await every_shard():
            try:
                await self._run_for_shard(shard, kind)
            except CONNECTION_ERRORS as error:  # the merchants of other nodes are paid all the same
                failed = error
        if failed is not None:
            raise failed

    async def _run_for_shard(self, shard: Shard, kind: str) -> None:
        merchant_id = MIN_ID
        while True:
            async with connection(shard) as conn:
                found = [record[0] for record in await conn.fetch(_MERCHANTS[kind], merchant_id, _MERCHANTS_PER_PAGE)]
            for merchant_id in found:
                await self._run_for(merchant_id, kind)
            if len(found) < _MERCHANTS_PER_PAGE:
                return

    async def _run_for(self, merchant_id: str, kind: str) -> None:
        try:
            await self.run(RequestContext(merchant_id, None, _CRON, "/api/v1/payouts", ""), kind)
        except Problem as problem:
            # NOT_FOUND: the merchant was deleted during the run, so there is nothing left to pay.
            if problem.code != "NOT_FOUND":
                SALES_RUNS_ABORTED.labels(kind).inc()
                _log.warning("sales_run_failed", merchant_id=merchant_id, kind=kind, error=problem.detail)
        except Exception:
            SALES_RUNS_ABORTED.labels(kind).inc()
            _log.exception("sales_run_failed", merchant_id=merchant_id, kind=kind)


def _record_run(context: RequestContext, kind: str, result: RunResult) -> None:
    """Count and log a completed run."""
    cause = "cron" if context.request_id == _CRON else "api"
    SALES_RUNS.labels(kind, cause).inc()
    _log.info(
        "sales_run", merchant_id=context.merchant_id, kind=kind, cause=cause, request_id=context.request_id,
        paid=result.paid, failed=result.failed, total_amount=str(result.total_amount),
    )  # fmt: skip


def _record_attempts(merchant_id: str, kind: str, attempts: Sequence[Attempt]) -> None:
    """Count committed attempts, and log those that failed."""
    failed = [attempt for attempt in attempts if attempt.error is not None]
    SALE_PAYMENTS.labels(kind, "paid").inc(len(attempts) - len(failed))
    SALE_PAYMENTS.labels(kind, "failed").inc(len(failed))
    for attempt in failed:
        _log.warning(
            "sale_payment_failed", merchant_id=merchant_id, sale_id=attempt.sale_id, user_id=attempt.user_id, kind=kind,
            amount=str(attempt.amount), error=attempt.error,
        )  # fmt: skip
