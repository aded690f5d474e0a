"""What can be asked of a user's wallet: record what was earned or spent, ask for a payout. Pure."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import msgspec

from sandbox.domain.errors import Problem
from sandbox.domain.ledger import EARN, SPEND
from sandbox.domain.payout_commands import NewPayout, create
from sandbox.domain.unit import CommandResult, Needs, RequestContext, UnitOfWork
from sandbox.domain.user import UserRow, UserTransaction

LARGEST_SUM: Final = Decimal("99999999999999.99")
_encode: Final = msgspec.json.Encoder().encode


class Transaction(msgspec.Struct):
    """A transaction of a user's wallet.

    `amount` is negative where it reverses an earlier one of its type. `transfer_id` is the wallet's transfer; PAYOUT and
    PAID_OUT have none, and name their payout.
    """

    id: str
    user_id: str
    type: str
    amount: Decimal
    reference: str | None
    transfer_id: str | None
    payout_id: str | None
    created_at: str


@dataclass(frozen=True, slots=True)
class RecordTransaction:
    """Record what a user earned or spent: 201 with the transaction. What is spent may leave the wallet below zero."""

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
        """Record it, or raise NOT_FOUND, or VALIDATION_ERROR past the largest sum."""
        user = user_of(unit, self.user_id)
        member = "earned" if self.type == "EARNED" else "spent"
        total = getattr(user, member) + self.amount
        if total > LARGEST_SUM:
            raise Problem(
                "VALIDATION_ERROR",
                f"What the user {member} would exceed {LARGEST_SUM}.",
                errors=[("amount", f"would take the sum above {LARGEST_SUM}")],
            )
        movement = EARN if self.type == "EARNED" else SPEND
        transfer_id = unit.transfer(movement, self.amount, None, self.reference or "", user.id)
        setattr(user, member, total)
        made = UserTransaction(unit.ids.next(), user.id, self.type, self.amount, self.reference, transfer_id, None)
        unit.user_transactions.append(made)
        unit.touch_user(user)
        body = Transaction(made.id, user.id, made.type, made.amount, made.reference, transfer_id, None, unit.now_text)
        return CommandResult(201, _encode(body), f"/api/v1/users/{user.id}/transactions")


@dataclass(frozen=True, slots=True)
class RequestPayout:
    """Ask for a payout of what a user has, to the user's destination: 201 with the payout, in REQUESTED."""

    context: RequestContext
    user_id: str
    amount: Decimal

    @property
    def needs(self) -> Needs:
        """The user."""
        return Needs(user_ids=(self.user_id,))

    def decide(self, unit: UnitOfWork) -> CommandResult:
        """Ask, or raise NOT_FOUND, INVALID_STATE without a destination, or INSUFFICIENT_BALANCE."""
        user = user_of(unit, self.user_id)
        if user.dest_type is None or user.account_number is None:
            raise Problem("INVALID_STATE", f"User {user.id} has no destination; set one with PATCH /api/v1/users/{user.id}.")
        new = NewPayout(
            # A reference of its own for each; the unit's ids are never given out twice.
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
    """A claimed user. Raises NOT_FOUND."""
    user = unit.users.get(user_id)
    if user is None:
        raise Problem("NOT_FOUND", f"There is no user {user_id}.")
    return user
