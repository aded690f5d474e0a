"""A user and the sums of what went through the user's wallet. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sandbox.domain.payout_states import HOLDS_FUNDS, REQUESTED, SUCCESS

DEBITED: Final = frozenset({"approved", "paid"})
"""The sums whose payouts have left the wallet."""


def place_of(status: str | None) -> str | None:
    """Which of a user's sums a payout in `status` counts into: requested, approved, paid, or none of them.

    What is requested is held, and leaves the wallet when it is approved.
    """
    if status == REQUESTED:
        return "requested"
    if status == SUCCESS:
        return "paid"
    return "approved" if status in HOLDS_FUNDS else None


def feed_rows(before: str | None, after: str | None, amount: Decimal) -> list[tuple[str, Decimal]]:
    """The rows (type, amount) that a payout adds to the vendor feed when it goes from one of the user's sums to another.

    PAYOUT rows add up to what is asked for or paid, PAID_OUT rows to what is paid. So a payout that ends unpaid takes its
    rows back with the negative amount, and one that is tried again adds a new one.
    """
    rows = []
    for kind, counted, counts in (
        ("PAYOUT", before is not None, after is not None),
        ("PAID_OUT", before == "paid", after == "paid"),
    ):
        if counted != counts:
            rows.append((kind, amount if counts else -amount))
    return rows


@dataclass(slots=True)
class UserRow:
    """A user in the store. Amounts are sums since the user was made; `version` counts every change of them."""

    id: str
    name: str
    external_id: str | None
    vendor_user_id: str
    dest_type: str | None
    bank_code: str | None
    wallet_code: str | None
    account_number: str | None
    earned: Decimal
    spent: Decimal
    credited: Decimal
    advances: Decimal
    finals: Decimal
    requested: Decimal
    approved: Decimal
    paid: Decimal
    version: int
    created_at: datetime

    @property
    def balance(self) -> Decimal:
        """What is in the wallet (CONTRACT, 4)."""
        came_in = self.earned + self.credited + self.advances + self.finals
        return came_in - self.spent - self.approved - self.paid

    @property
    def available(self) -> Decimal:
        """What may still be asked for."""
        return self.balance - self.requested


@dataclass(frozen=True, slots=True)
class UserTransaction:
    """A row of a user's transactions and of the vendor feed: EARNED or SPENT by a transfer, PAYOUT or PAID_OUT of a payout.

    The amount of a PAYOUT or PAID_OUT row is negative when it takes an earlier row back.
    """

    id: str
    user_id: str
    type: str
    amount: Decimal
    reference: str | None
    transfer_id: str | None
    payout_id: str | None


COLUMNS: Final = (
    "id::text AS id, name, external_id, vendor_user_id, dest_type, bank_code, wallet_code, account_number, earned, spent, "
    "credited, advances, finals, requested, approved, paid, version, created_at"
)
"""What to select from `users` so that `to_user` can read it."""


def to_user(record: Mapping[str, Any]) -> UserRow:
    """A user from a record with COLUMNS."""
    return UserRow(*(record[name] for name in UserRow.__slots__))
