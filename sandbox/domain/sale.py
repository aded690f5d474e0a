"""Sales and their payments: an advance while the sale is pending, and a final payment once it is reconciled. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, get_args

import msgspec

from sandbox.domain.clock import render
from sandbox.domain.enumerations import SalePaymentKind, SaleStatus
from sandbox.domain.fields import Count, Id, one_of
from sandbox.domain.money import ZERO, round_half_up
from sandbox.domain.payout_states import CANCELLED, FAILED, RETURNED
from sandbox.domain.payout_states import PENDING as PAYOUT_PENDING
from sandbox.domain.scenario_engine import Facts, Scenario, can_follow, is_taken
from sandbox.domain.shown import shown

PENDING: Final = "PENDING"
APPROVED: Final = "APPROVED"
STATUSES: Final[tuple[SaleStatus, ...]] = get_args(SaleStatus)

ADVANCE: Final = "ADVANCE"
FINAL: Final = "FINAL"
RUN_MINUTES: Final[Mapping[SalePaymentKind, int]] = {ADVANCE: 0, FINAL: 30}
"""Kind of payment → the minute of each hour of the merchant's time at which the sandbox makes such payments."""

_ADVANCE_SHARE: Final = Decimal("0.10")
_FAILING_SUFFIX: Final = "0003"
"""The suffix of account numbers to which every payment fails."""
_UNPAID: Final = {FAILED: "BANK_REJECTED", CANCELLED: "CANCELLED", RETURNED: "RETURNED_BY_BANK"}
"""The statuses in which a path ends if its payment fails → the failure code if the scenario's step sets none."""


class SalePayment(msgspec.Struct):
    """A payment for a sale. `kind` is ADVANCE or FINAL. A negative FINAL takes money back; one of 0.00 moves no money."""

    kind: SalePaymentKind
    amount: Decimal
    transfer_id: str | None
    created_at: str


class Sale(msgspec.Struct):
    """A sale. Its payment amounts are null until they are paid.

    `attempts` counts all attempts to pay its advance or final. `last_error` says why the last one failed; it is null if it
    succeeded.
    """

    id: Id
    user_id: Id
    brand: str
    earning: Decimal
    status: Annotated[str, one_of(SaleStatus)]
    advance_amount: Decimal | None
    final_amount: Decimal | None
    payments: list[SalePayment]
    attempts: Count
    last_error: str | None
    created_at: str
    reconciled_at: str | None


class RunResult(msgspec.Struct):
    """The result of a run: sales paid, sales whose attempt failed, and the net total."""

    paid: int
    failed: int
    total_amount: Decimal


COLUMNS: Final = (
    "sales.id::text AS id, user_id::text AS user_id, brand, earning, status, advance_amount, final_amount, "
    "coalesce(attempts, 0) AS attempts, last_error, created_at, reconciled_at, ARRAY("
    "SELECT json_build_array(p.kind, p.amount::text, p.transfer_id, p.created_at) FROM sale_payments p "
    "WHERE p.merchant_id = $1 AND p.sale_id = sales.id ORDER BY p.created_at, p.kind) AS payments"
)
"""The columns of `sales` that `to_sale` reads."""


def to_sale(record: Mapping[str, Any]) -> Sale:
    """Return a sale from a record with COLUMNS."""
    payments = [
        SalePayment(kind, amount, transfer_id, render(created_at))
        for kind, amount, transfer_id, created_at in map(_decode_payment, record["payments"])
    ]
    return shown(Sale, record, payments=payments)


def due_kind(sale: Sale) -> SalePaymentKind | None:
    """Return the payment that the sale waits for; None if it needs none, until it is reconciled or for good."""
    if sale.status == PENDING:
        return ADVANCE if sale.advance_amount is None else None
    return FINAL if sale.final_amount is None else None


def next_run(kind: SalePaymentKind, after: datetime) -> datetime:
    """Return the first time after `after` at which the sandbox makes payments of this kind. `after` is in UTC."""
    run = after.replace(minute=RUN_MINUTES[kind], second=0, microsecond=0)
    return run if run > after else run + timedelta(hours=1)


def payment_of(sale: Sale, kind: SalePaymentKind) -> Decimal:
    """Return the amount of a sale's advance or final payment."""
    return advance_of(sale.earning) if kind == ADVANCE else final_of(sale.earning, sale.advance_amount, sale.status)


def advance_of(earning: Decimal) -> Decimal:
    """Return the advance: a tenth of the earning, rounded half up to the paisa."""
    return round_half_up(earning * _ADVANCE_SHARE)


def final_of(earning: Decimal, advance: Decimal | None, status: str) -> Decimal:
    """Return the final payment of a reconciled sale. For a declined sale, it is negative and takes back the advance."""
    return (earning if status == APPROVED else ZERO) - (advance or ZERO)


def failure_of(facts: Facts, rules: Sequence[Scenario], draw_key: str) -> tuple[str, str] | None:
    """Return the failure code of an attempt to pay, and the scenario that makes it fail; None if the attempt succeeds.

    The first of the merchant's own rules that matches decides: the attempt fails if its steps end in FAILED, CANCELLED or
    RETURNED. Delays are ignored. If no rule matches, a destination that ends in 0003 fails. `draw_key` decides which of the
    steps with a probability are taken.
    """
    rule = next((rule for rule in rules if rule.match.matches(facts)), None)
    if rule is None:
        return ("BANK_REJECTED", "failed") if facts.account_number.endswith(_FAILING_SUFFIX) else None
    status, code = PAYOUT_PENDING, None
    for number, step in enumerate(rule.steps):
        if can_follow(status, step.to) and is_taken(step.probability, draw_key, number):
            status, code = step.to, step.failure_code
    return (code or _UNPAID[status], rule.name) if status in _UNPAID else None


_decode_payment: Final = msgspec.json.Decoder(tuple[SalePaymentKind, Decimal, str | None, datetime]).decode
