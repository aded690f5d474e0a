"""A user and the totals of the user's wallet. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sandbox.domain.payout_states import HOLDS_FUNDS, REQUESTED, SUCCESS

DEBITED_FIELDS: Final = frozenset({"approved", "paid"})
"""The totals of payouts that have been debited from the wallet."""


def total_field_for(status: str | None) -> str | None:
    """Return the field of UserRow whose total includes a payout in `status`: requested, approved, paid or None.

    A requested payout is held in the wallet. It leaves the wallet when it is approved.
    """
    if status == REQUESTED:
        return "requested"
    if status == SUCCESS:
        return "paid"
    return "approved" if status in HOLDS_FUNDS else None


def feed_rows(before: str | None, after: str | None, amount: Decimal) -> list[tuple[str, Decimal]]:
    """Return the rows (type, amount) that a payout adds to the vendor feed when it moves from one total to another.

    PAYOUT rows add up to requested + approved + paid, PAID_OUT rows to paid. A payout that ends unpaid reverses its rows
    with negative amounts, and one that is reinitiated adds a new row.
    """
    rows = []
    for kind, was_counted, is_counted in (
        ("PAYOUT", before is not None, after is not None),
        ("PAID_OUT", before == "paid", after == "paid"),
    ):
        if was_counted != is_counted:
            rows.append((kind, amount if is_counted else -amount))
    return rows


@dataclass(slots=True)
class UserRow:
    """A stored user. Amounts are totals since the user was created; `version` counts changes to them."""

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
        """The wallet's balance, including requested payouts."""
        credits = self.earned + self.credited + self.advances + self.finals
        return credits - self.spent - self.approved - self.paid

    @property
    def available(self) -> Decimal:
        """The balance minus requested payouts: the maximum amount of a new payout."""
        return self.balance - self.requested


@dataclass(frozen=True, slots=True)
class UserTransaction:
    """A row of a user's transactions and of the vendor feed. EARNED and SPENT have a transfer, PAYOUT and PAID_OUT a payout.

    A PAYOUT or PAID_OUT row with a negative amount reverses an earlier row.
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
"""The columns of `users` that `to_user` reads."""


def to_user(record: Mapping[str, Any]) -> UserRow:
    """Return a user from a record with COLUMNS."""
    return UserRow(*(record[name] for name in UserRow.__slots__))
