"""What is paid for a sale: an advance while it is pending, and the rest once it is reconciled. Pure."""

from decimal import Decimal
from typing import Final

import msgspec

from sandbox.money import ZERO, round_half_up

PENDING: Final = "PENDING"
APPROVED: Final = "APPROVED"
DECLINED: Final = "DECLINED"
STATUSES: Final = (PENDING, APPROVED, DECLINED)

_ADVANCE_SHARE: Final = Decimal("0.10")


class Sale(msgspec.Struct):
    """A sale on the wire. Its amounts are None until they were paid."""

    id: str
    user_id: str
    brand: str
    earning: Decimal
    status: str
    advance_amount: Decimal | None
    final_amount: Decimal | None
    created_at: str
    reconciled_at: str | None


class RunResult(msgspec.Struct):
    """What a run did: sales paid, sales whose attempt failed, and what was paid in all (taken back counts as less)."""

    paid: int
    failed: int
    total_amount: Decimal


def advance_of(earning: Decimal) -> Decimal:
    """A tenth of the earning, rounded half up to the paisa (CONTRACT, 4)."""
    return round_half_up(earning * _ADVANCE_SHARE)


def final_of(earning: Decimal, advance: Decimal | None, status: str) -> Decimal:
    """What is left to pay of a reconciled sale; below zero what is taken back of a declined one (CONTRACT, 4)."""
    return (earning if status == APPROVED else ZERO) - (advance or ZERO)
