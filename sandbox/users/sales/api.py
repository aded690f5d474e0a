"""The operations on sales: `/api/v1/sales`, `/api/v1/reconcile`, and the runs of `/api/v1/payouts/{advance,final}`."""

from typing import Final

from sandbox.domain.enumerations import SalePaymentKind
from sandbox.domain.fields import EmptyBody, Uuid
from sandbox.domain.sale import ADVANCE, FINAL, RUN_MINUTES, STATUSES, RunResult, Sale
from sandbox.domain.unit import CommandResult
from sandbox.http.body import amount_of
from sandbox.http.operation import DATED_PAGE, Operation, get, parameter, post
from sandbox.http.paging import Page, selected, window
from sandbox.http.request import Request
from sandbox.users.sales.requests import CreateSaleBody, ReconcileBody
from sandbox.users.sales.service import Reconciled, SalesService

_ID: Final = "019a9a5e-3c00-7a41-8b1f-2f6c1d0e9b77"


def _run(kind: SalePaymentKind, summary: str) -> Operation:
    return post(
        f"/api/v1/payouts/{kind.lower()}/run", summary, {200: RunResult}, EmptyBody,
        psp=f"sales run {kind.lower()}",
        description="Each sale is paid exactly once, however often this runs. An attempt fails if the user's account "
        "number ends in 0003, or if a scenario of your own matches (by destination, amount, user_id, or the metadata "
        "`kind` (ADVANCE, FINAL), `sale_id` and `brand`) and ends in FAILED, CANCELLED or RETURNED. A failed attempt "
        "moves no money, counts in the sale's `attempts`, sets its `last_error`, and is retried by the next run. Runs "
        f"automatically at :{RUN_MINUTES[kind]:02} of each hour of the merchant's time, also when a clock is advanced over "
        "that time. This call does not wait for it.",
    )  # fmt: skip


class SaleApi:
    """The operations on sales, their payment runs and their reconciliation."""

    def __init__(self, sales: SalesService) -> None:
        self._sales = sales

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
    async def create_sale(self, request: Request, body: CreateSaleBody) -> CommandResult:
        return await self._sales.create(request.context, body, amount_of(body.earning, "earning"))

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
    async def list_sales(self, request: Request) -> Page:
        statuses = selected(request.query, "status", STATUSES)
        return await self._sales.list(request.merchant_id, window(request.query), statuses, request.query.get("user_id"))

    @get("/api/v1/sales/{sale_id}", "Get a sale", {200: Sale}, psp="sales get")
    async def get_sale(self, request: Request, sale_id: Uuid) -> Sale:
        return await self._sales.get(request.merchant_id, sale_id)

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
    async def reconcile_sales(self, request: Request, body: ReconcileBody) -> CommandResult:
        return await self._sales.reconcile(request.context, body)

    @_run(ADVANCE, "Pay advances")
    async def run_advances(self, request: Request) -> CommandResult:
        return await self._sales.run(request.context, ADVANCE)

    @_run(FINAL, "Settle reconciled sales")
    async def run_finals(self, request: Request) -> CommandResult:
        return await self._sales.run(request.context, FINAL)
