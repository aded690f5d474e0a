"""Create, list, reconcile and pay sales."""

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec

from sandbox.domain.enumerations import SalePaymentKind
from sandbox.domain.errors import Problem, invalid_fields
from sandbox.domain.ids import MIN_ID
from sandbox.domain.sale import ADVANCE, COLUMNS, FINAL, PENDING, RunResult, Sale, next_run, to_sale
from sandbox.domain.unit import CommandResult, RequestContext, UnitOfWork
from sandbox.http.paging import Page, PageWindow, page
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.users.sales.payments import CHUNK, WEIGHT, Attempt, add_attempts, pay_open
from sandbox.users.sales.reporting import NOTHING, record_attempts, record_run
from sandbox.users.sales.requests import CreateSaleBody, ReconcileItem

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

_SQL: Final = read_statements(__name__, columns=COLUMNS)
_HAS_USER: Final = _SQL["has_user"]
_INSERT: Final = _SQL["insert"]
_GET: Final = _SQL["get"]
_LIST: Final = _SQL["list"]
_LIST_BY_USER: Final = _SQL["list_by_user"]
_TO_RECONCILE: Final = _SQL["to_reconcile"]
_RECONCILE: Final = _SQL["reconcile"]


class Reconciled(msgspec.Struct):
    """The reconciled sales, in the order of the request."""

    reconciled: int
    sales: list[Sale]


class _Progress(msgspec.Struct, rename={"last_id": "behind"}):
    """The checkpoint of a run: its result so far. `last_id` is the id of the last sale that was tried."""

    total: RunResult
    last_id: str


_START: Final = _Progress(NOTHING, MIN_ID)


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
            due_at = next_run(ADVANCE, unit.now)
            await conn.execute(_INSERT, unit.merchant_id, sale_id, body.user_id, body.brand, earning, due_at, unit.now)
            sale = Sale(sale_id, body.user_id, body.brand, earning, PENDING, None, None, [], 0, None, unit.now_text, None)
            return CommandResult(201, msgspec.json.encode(sale), f"/api/v1/sales/{sale_id}")

        return await self._work.run(context, action)

    async def get(self, merchant_id: str, sale_id: str) -> Sale:
        """Return a sale. Raises NOT_FOUND."""
        async with connection(merchant_id) as conn:
            record = await conn.fetchrow(_GET, merchant_id, sale_id)
        if record is None:
            raise Problem("NOT_FOUND", f"Sale {sale_id} not found.")
        return to_sale(record)

    async def list(self, merchant_id: str, window: PageWindow, statuses: Sequence[str], user_id: str | None) -> Page:
        """Return a page of sales, newest first; with a `user_id`, only that user's."""
        statement, extra = (_LIST, []) if user_id is None else (_LIST_BY_USER, [user_id])
        async with connection(merchant_id) as conn:
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
            sale_ids, statuses = list(verdicts), list(verdicts.values())
            await conn.execute(_RECONCILE, unit.merchant_id, unit.now, sale_ids, statuses, next_run(FINAL, unit.now))
            for sale_id, status in verdicts.items():
                found[sale_id].status, found[sale_id].reconciled_at = status, unit.now_text
            body = Reconciled(len(verdicts), [found[sale_id] for sale_id in verdicts])
            return CommandResult(200, msgspec.json.encode(body))

        return await self._work.run(context, action)

    async def run(self, context: RequestContext, kind: SalePaymentKind) -> CommandResult:
        """Pay all open advances (`ADVANCE`) or final payments (`FINAL`): 200 with a RunResult.

        Each chunk is one transaction, which also stores a checkpoint under the idempotency key. If the process dies between two
        chunks, the sales already paid are not paid again. Repeated with the same key, the run resumes, and its result counts
        all chunks.
        """
        attempts: list[Attempt] = []

        async def action(conn: "PoolConnectionProxy[Any]", unit: UnitOfWork, checkpoint: bytes | None) -> CommandResult:
            done = _START if checkpoint is None else msgspec.json.decode(checkpoint, type=_Progress)
            # This may run again after a rollback, so replace the attempts that were rolled back.
            attempts[:], last_id = await pay_open(conn, unit, kind, done.last_id, CHUNK)
            total = add_attempts(done.total, attempts)
            if last_id is None:
                return CommandResult(200, msgspec.json.encode(total))
            return CommandResult(200, msgspec.json.encode(_Progress(total, last_id)), provisional=True)

        def on_part(result: CommandResult) -> None:
            record_attempts(context.merchant_id, attempts)
            attempts.clear()
            if not (result.provisional or result.replayed or result.status >= 400):
                done = msgspec.json.decode(result.body, type=RunResult)
                record_run(context.merchant_id, kind, "api", context.request_id, done)

        return await self._work.run_resumable(context, action, WEIGHT, on_part)
