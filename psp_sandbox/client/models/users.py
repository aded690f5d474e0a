"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a user's payouts go."""

    dest_type: str
    bank_code: str | None
    wallet_code: str | None
    account_number: str


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user of a merchant, with a wallet."""

    id: str
    name: str
    external_id: str | None
    vendor_user_id: str
    destination: Destination | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedUser:
    """The result of a batch item that was created."""

    status: Literal[201]
    user: User


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSummary:
    """The totals of a user's wallet.

    `balance` = earned + credited + advances + finals − spent − payout_approved − payout_paid. `available` = balance
    − payout_requested: the amount that can still be paid out.
    """

    user_id: str
    currency: str
    balance: Decimal
    earned: Decimal
    spent: Decimal
    credited: Decimal
    advances: Decimal
    finals: Decimal
    payout_requested: Decimal
    payout_approved: Decimal
    payout_paid: Decimal
    available: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A transaction of a user's wallet.

    A negative `amount` reverses an earlier transaction of the same type. `transfer_id` is the wallet's transfer;
    PAYOUT and PAID_OUT have a `payout_id` instead.
    """

    id: str
    user_id: str
    type: Literal["EARNED", "SPENT", "CREDITED", "ADVANCE", "FINAL", "PAYOUT", "PAID_OUT"]
    amount: Decimal
    reference: str | None
    transfer_id: str | None
    payout_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UserBalance:
    """The balance of a user's wallet, and the part of it that can still be paid out."""

    user_id: str
    balance: Decimal
    available: Decimal
