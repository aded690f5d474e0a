"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class SalePayment:
    """A payment for a sale. `kind` is ADVANCE or FINAL. A negative FINAL takes money back; one of 0.00 moves no money."""

    kind: Literal["ADVANCE", "FINAL"]
    amount: Decimal
    transfer_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """A sale. Its payment amounts are null until they are paid.

    `attempts` counts all attempts to pay its advance or final. `last_error` says why the last one failed; it is
    null if it succeeded.
    """

    id: str
    user_id: str
    brand: str
    earning: Decimal
    status: Literal["PENDING", "APPROVED", "DECLINED"]
    advance_amount: Decimal | None
    final_amount: Decimal | None
    payments: list[SalePayment]
    attempts: int
    last_error: str | None
    created_at: datetime
    reconciled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """The reconciled sales, in the order of the request."""

    reconciled: int
    sales: list[Sale]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The result of a run: sales paid, sales whose attempt failed, and the net total."""

    paid: int
    failed: int
    total_amount: Decimal
