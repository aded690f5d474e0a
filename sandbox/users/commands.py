"""User commands: record earnings and spending, request a payout. Pure."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Final

import msgspec

from sandbox.domain.enumerations import TransactionType
from sandbox.domain.errors import Problem
from sandbox.domain.fields import one_of
from sandbox.domain.ledger import EARN, SPEND
from sandbox.domain.payout_commands import NewPayout, create
from sandbox.domain.unit import CommandResult, Needs, RequestContext, UnitOfWork
from sandbox.domain.user import UserRow, UserTransaction

MAX_SUM: Final = Decimal("99999999999999.99")
_encode: Final = msgspec.json.Encoder().encode


class Transaction(msgspec.Struct):
    """A transaction of a user's wallet.

    A negative `amount` reverses an earlier transaction of the same type. `transfer_id` is the wallet's transfer; PAYOUT and
    PAID_OUT have a `payout_id` instead.
    """

    id: str
    user_id: str
    type: Annotated[str, one_of(TransactionType)]
    amount: Decimal
    reference: str | None
    transfer_id: str | None
    payout_id: str | None
    created_at: str


@dataclass(frozen=True, slots=True)
class RecordTransaction:
    """Record what a user earned or spent. Result: 201 with the transaction. Spending may make the wallet negative."""

    context: RequestContext
    user_id: str
    type: str
    amount: Decimal
    reference: str | None

    @property
    def needs(self) -> Needs:
        """The user."""
        return Needs(user_ids=(self.user_id,))

    def decide(self, unit: UnitOfWork) -> CommandResult:
        """Record the transaction. Raises NOT_FOUND, or VALIDATION_ERROR if the user's total would exceed MAX_SUM."""
        user = user_of(unit, self.user_id)
        field = "earned" if self.type == "EARNED" else "spent"
        total = getattr(user, field) + self.amount
        if total > MAX_SUM:
            raise Problem(
                "VALIDATION_ERROR",
                f"This amount would raise the user's total {field} above {MAX_SUM}.",
                errors=[("amount", f"would raise the user's total {field} above {MAX_SUM}")],
            )
        movement = EARN if self.type == "EARNED" else SPEND
        transfer_id = unit.transfer(movement, self.amount, None, self.reference or "", user.id)
        setattr(user, field, total)
        row = UserTransaction(unit.ids.next(), user.id, self.type, self.amount, self.reference, transfer_id, None)
        unit.user_transactions.append(row)
        unit.touch_user(user)
        body = Transaction(row.id, user.id, row.type, row.amount, row.reference, transfer_id, None, unit.now_text)
        return CommandResult(201, _encode(body), f"/api/v1/users/{user.id}/transactions")


@dataclass(frozen=True, slots=True)
class RequestPayout:
    """Request a payout from a user's wallet to the user's destination. Result: 201 with the payout, in REQUESTED."""

    context: RequestContext
    user_id: str
    amount: Decimal

    @property
    def needs(self) -> Needs:
        """The user."""
        return Needs(user_ids=(self.user_id,))

    def decide(self, unit: UnitOfWork) -> CommandResult:
        """Create the payout. Raises NOT_FOUND, INVALID_STATE if the user has no destination, or INSUFFICIENT_BALANCE."""
        user = user_of(unit, self.user_id)
        if user.dest_type is None or user.account_number is None:
            raise Problem("INVALID_STATE", f"User {user.id} has no destination; set one with PATCH /api/v1/users/{user.id}.")
        new = NewPayout(
            # Unique, because ids are.
            merchant_reference=f"user-payout-{unit.ids.next()}",
            amount=self.amount,
            dest_type=user.dest_type,
            bank_code=user.bank_code,
            wallet_code=user.wallet_code,
            account_number=user.account_number,
            account_title=user.name,
            metadata={},
            requires_approval=True,
            user_id=user.id,
        )
        row = create(unit, new, self.context)
        return CommandResult(201, _encode(row.payout), f"/api/v1/payouts/{row.payout.id}")


def user_of(unit: UnitOfWork, user_id: str) -> UserRow:
    """Return a claimed user. Raises NOT_FOUND."""
    user = unit.users.get(user_id)
    if user is None:
        raise Problem("NOT_FOUND", f"There is no user {user_id}.")
    return user
