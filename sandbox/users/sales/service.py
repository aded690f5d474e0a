"""Create, list, reconcile and pay sales."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from sandbox.domain.enumerations import SalePaymentKind
from sandbox.domain.errors import Problem, invalid_fields
from sandbox.domain.fields import EmptyBody, Uuid
from sandbox.domain.ids import MIN_ID
from sandbox.domain.sale import ADVANCE, COLUMNS, FINAL, PENDING, RUN_MINUTES, STATUSES, RunResult, Sale, next_run, to_sale
from sandbox.domain.unit import CommandResult, RequestContext, UnitOfWork
from sandbox.http.body import amount_of
from sandbox.http.operation import DATED_PAGE, Operation, get, parameter, post
from sandbox.http.paging import Page, PageWindow, page, selected
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import connection
from sandbox.infrastructure.db.statements import read_statements
from sandbox.unit_of_work.runner import UnitOfWorkRunner
from sandbox.users.sales.payments import CHUNK, WEIGHT, Attempt, add_attempts, pay_open
from sandbox.users.sales.reporting import NOTHING, record_attempts, record_run
from sandbox.users.sales.requests import CreateSaleBody, ReconcileBody, ReconcileItem

_SQL: Final = read_statements(__name__, columns=COLUMNS)


class Reconciled(msgspec.Struct):
    """The reconciled sales, in the order of the request."""

    reconciled: int
    sales: list[Sale]


class _Progress(msgspec.Struct, rename={"last_id": "behind"}):
    """The checkpoint of a run: its result so far. `last_id` is the id of the last sale that was tried."""

    total: RunResult
    last_id: str


_START: Final = _Progress(NOTHING, MIN_ID)


_ID: Final = "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77"


def _run(kind: SalePaymentKind, summary: str) -> Operation:
    return post(
        f"/api/v1/payouts/{kind.lower()}/run", summary, {200: RunResult}, EmptyBody,
        psp=f"sales run {kind.lower()}",
        description="Each sale is paid exactly once, however often this runs. An attempt fails if the user's account "
        "number ends in 0003, or if a scenario of your own matches (by destination, amount, user_id, or the metadata "
        "`kind` (ADVANCE, FINAL), `sale_id` and `brand`) and ends in FAILED, CANCELLED or RETURNED. A failed attempt "
        "moves no money, counts in the sale's `attempts`, sets its `last_error`, and is retried by the next run. Runs "
        f"automatically at :{RUN_MINUTES[kind]:02} of each hour of the merchant's time, including when a clock is advanced "
        "over that time. This call does not wait for it.",
    )  # fmt: skip


class SalesService:
    """The operations on sales."""

    def __init__(self, work: UnitOfWorkRunner) -> None:
        self._work = work

    @post(
        "/api/v1/sales",
        "Record a sale",
        {201: Sale},
        CreateSaleBody,
        errors=("NOT_FOUND",),
        links={"get": ("get_sale", "sale_id")},
        example={"user_id": _ID, "brand": "Khaadi", "earning": "40.00"},
        psp="sales create",
    )
    async def create_sale(self, context: RequestContext, body: CreateSaleBody) -> CommandResult:
        """Record a user's sale: 201 with the sale, or 404 for an unknown user. Raises VALIDATION_ERROR for the amount."""
        earning = amount_of(body.earning, "earning")

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            if not await conn.fetchval(_SQL["has_user"], unit.merchant_id, body.user_id):
                raise Problem("NOT_FOUND", f"User {body.user_id} not found.")
            sale_id = unit.ids.next()
            due_at = next_run(ADVANCE, unit.now)
            await conn.execute(_SQL["insert"], unit.merchant_id, sale_id, body.user_id, body.brand, earning, due_at, unit.now)
            sale = Sale(sale_id, body.user_id, body.brand, earning, PENDING, None, None, [], 0, None, unit.now_text, None)
            return CommandResult(201, msgspec.json.encode(sale), f"/api/v1/sales/{sale_id}")

        return await self._work.run(context, action)

    @get("/api/v1/sales/{sale_id}", "Get a sale", {200: Sale}, psp="sales get")
    async def get_sale(self, merchant_id: str, sale_id: Uuid) -> Sale:
        """Return a sale. Raises NOT_FOUND."""
        async with connection(merchant_id) as conn:
            record = await conn.fetchrow(_SQL["get"], merchant_id, sale_id)
        if record is None:
            raise Problem("NOT_FOUND", f"Sale {sale_id} not found.")
        return to_sale(record)

    @get(
        "/api/v1/sales",
        "List sales, newest first",
        {200: list[Sale]},
        query=(
            *DATED_PAGE,
            parameter("status", "Only sales with this status.", type="string", enum=list(STATUSES)),
            parameter("user_id", "Only sales of this user.", type="string", format="uuid"),
        ),
        psp="sales list",
        columns="id created_at user_id brand earning status advance_amount final_amount attempts last_error",
    )
    async def list_sales(self, merchant_id: str, window: PageWindow, query: Mapping[str, str]) -> Page:
        """Return a page of sales, newest first; with a `user_id`, only that user's."""
        statuses, user_id = selected(query, "status", STATUSES), query.get("user_id")
        statement, extra = (_SQL["list"], []) if user_id is None else (_SQL["list_by_user"], [user_id])
        async with connection(merchant_id) as conn:
            records = await conn.fetch(statement, merchant_id, statuses, window.before, window.since, window.limit + 1, *extra)
        found = [to_sale(record) for record in records]
        return page(found, window.limit, [sale.id for sale in found])

    @post(
        "/api/v1/reconcile",
        "Approve or decline sales, all or none",
        {200: Reconciled},
        ReconcileBody,
        errors=("NOT_FOUND", "ALREADY_RECONCILED"),
        access="admin",
        example=[{"sale_id": _ID, "status": "APPROVED"}],
        psp="sales reconcile --approve {APPROVED:repeated} --decline {DECLINED:repeated}",
    )
    async def reconcile_sales(self, context: RequestContext, body: Sequence[ReconcileItem]) -> CommandResult:
        """Approve or decline sales, all or none: 200 with the sales.

        Returns 404 if a sale does not exist, 409 if one is already reconciled. Raises VALIDATION_ERROR if one is listed twice.
        """
        verdicts = {item.sale_id: item.status for item in body}
        if len(verdicts) < len(body):
            first = {item.sale_id: index for index, item in reversed([*enumerate(body)])}
            repeated = [index for index, item in enumerate(body) if first[item.sale_id] != index]
            raise invalid_fields(
                [(f"[{index}].sale_id", f"is already listed in [{first[body[index].sale_id]}]") for index in repeated]
            )

        async def action(conn: Connection, unit: UnitOfWork) -> CommandResult:
            records = await conn.fetch(_SQL["to_reconcile"], unit.merchant_id, list(verdicts))
            found = {record["id"]: to_sale(record) for record in records}
            for sale_id in verdicts:
                if sale_id not in found:
                    raise Problem("NOT_FOUND", f"Sale {sale_id} not found. No sale was reconciled.")
            for sale_id, sale in found.items():
                if sale.status != PENDING:
                    raise Problem("ALREADY_RECONCILED", f"Sale {sale_id} is already {sale.status}. No sale was reconciled.")
            sale_ids, statuses = list(verdicts), list(verdicts.values())
            await conn.execute(_SQL["reconcile"], unit.merchant_id, unit.now, sale_ids, statuses, next_run(FINAL, unit.now))
            for sale_id, status in verdicts.items():
                found[sale_id].status, found[sale_id].reconciled_at = status, unit.now_text
            body = Reconciled(len(verdicts), [found[sale_id] for sale_id in verdicts])
            return CommandResult(200, msgspec.json.encode(body))

        return await self._work.run(context, action)

    @_run(ADVANCE, "Pay advances")
    async def run_advances(self, context: RequestContext) -> CommandResult:
        """Pay all open advances, as `run` does."""
        return await self.run(context, ADVANCE)

    @_run(FINAL, "Settle reconciled sales")
    async def run_finals(self, context: RequestContext) -> CommandResult:
        """Make all open final payments, as `run` does."""
        return await self.run(context, FINAL)

    async def run(self, context: RequestContext, kind: SalePaymentKind) -> CommandResult:
        """Pay all open advances (`ADVANCE`) or final payments (`FINAL`): 200 with a RunResult.

        Each chunk is one transaction, which also stores a checkpoint under the idempotency key. If the process dies between two
        chunks, the sales already paid are not paid again. Repeated with the same key, the run resumes, and its result counts
        all chunks.
        """
        attempts: list[Attempt] = []

        async def action(conn: Connection, unit: UnitOfWork, checkpoint: bytes | None) -> CommandResult:
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
