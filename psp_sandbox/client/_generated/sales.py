"""Create payouts, follow them, and approve, reject or cancel them. Also pays for sales. Approve or decline sales.
Users' sales and the payouts for them.
"""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal

from psp_sandbox.client import inputs
from psp_sandbox.client._callers import Caller
from psp_sandbox.client._calls import Amount, Call, given, new_key, query, segment
from psp_sandbox.client.models.sales import Reconciled, RunResult, Sale


class SalesApi:
    """Create payouts, follow them, and approve, reject or cancel them. Also pays for sales. Approve or decline sales.
    Users' sales and the payouts for them.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def run_advances(self, *, idempotency_key: str | None = None) -> RunResult:
        """Pay advances.

        Each sale is paid exactly once, however often this runs. An attempt fails if the user's account number ends in
        0003, or if a scenario of your own matches (by destination, amount, user_id, or the metadata `kind` (ADVANCE,
        FINAL), `sale_id` and `brand`) and ends in FAILED, CANCELLED or RETURNED. A failed attempt moves no money,
        counts in the sale's `attempts`, sets its `last_error`, and is retried by the next run. Runs automatically at
        :00 of each hour of the merchant's time, also when a clock is advanced over that time. This call does not wait
        for it.
        """
        return self._caller.send(
            Call(RunResult, "POST", "/api/v1/payouts/advance/run", body=given({}), idempotency_key=idempotency_key or new_key())
        )

    def run_finals(self, *, idempotency_key: str | None = None) -> RunResult:
        """Settle reconciled sales.

        Each sale is paid exactly once, however often this runs. An attempt fails if the user's account number ends in
        0003, or if a scenario of your own matches (by destination, amount, user_id, or the metadata `kind` (ADVANCE,
        FINAL), `sale_id` and `brand`) and ends in FAILED, CANCELLED or RETURNED. A failed attempt moves no money,
        counts in the sale's `attempts`, sets its `last_error`, and is retried by the next run. Runs automatically at
        :30 of each hour of the merchant's time, also when a clock is advanced over that time. This call does not wait
        for it.
        """
        return self._caller.send(
            Call(RunResult, "POST", "/api/v1/payouts/final/run", body=given({}), idempotency_key=idempotency_key or new_key())
        )

    def reconcile(self, items: Sequence[inputs.ReconcileItem], *, idempotency_key: str | None = None) -> Reconciled:
        """Approve or decline sales, all or none.

        Needs a key with the `admin` role.

        Raises Forbidden, NotFound, AlreadyReconciled.
        """
        return self._caller.send(
            Call(Reconciled, "POST", "/api/v1/reconcile", body=items, idempotency_key=idempotency_key or new_key())
        )

    def list(
        self,
        *,
        limit: int | None = None,
        status: Literal["PENDING", "APPROVED", "DECLINED"] | None = None,
        user_id: str | None = None,
        created_from: datetime | str | None = None,
        created_to: datetime | str | None = None,
    ) -> Iterator[Sale]:
        """List sales, newest first.

        Requests each page when it is needed; `limit` is the number of items per page.

        status: Only sales with this status.
        user_id: Only sales of this user.
        created_from: Only items created at or after this time.
        created_to: Only items created before this time.
        """
        return self._caller.pages(
            Call(
                Sale,
                "GET",
                "/api/v1/sales",
                query=query(
                    {
                        "limit": limit,
                        "status": status,
                        "user_id": user_id,
                        "created_from": created_from,
                        "created_to": created_to,
                    }
                ),
            )
        )

    def create(self, *, user_id: str, brand: str, earning: Amount, idempotency_key: str | None = None) -> Sale:
        """Record a sale.

        Raises NotFound.
        """
        return self._caller.send(
            Call(
                Sale,
                "POST",
                "/api/v1/sales",
                body=given({"user_id": user_id, "brand": brand, "earning": earning}),
                idempotency_key=idempotency_key or new_key(),
            )
        )

    def get(self, sale_id: str) -> Sale:
        """Get a sale.

        Raises NotFound.
        """
        return self._caller.send(Call(Sale, "GET", f"/api/v1/sales/{segment(sale_id)}"))
