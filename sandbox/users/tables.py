"""The tables of users and of their transactions."""

from piccolo.columns import UUID, BigInt, Numeric, Text, Timestamptz
from piccolo.table import Table

from sandbox.db.engine import ENGINE


class Users(Table, db=ENGINE):
    """A merchant's user with the totals of the wallet."""

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    name = Text(default=None)
    external_id = Text(null=True, default=None)
    vendor_user_id = Text(default=None)
    dest_type = Text(null=True, default=None)
    bank_code = Text(null=True, default=None)
    wallet_code = Text(null=True, default=None)
    account_number = Text(null=True, default=None)
    earned = Numeric(digits=(20, 2), default=None)
    spent = Numeric(digits=(20, 2), default=None)
    credited = Numeric(digits=(20, 2), default=None)
    advances = Numeric(digits=(20, 2), default=None)
    finals = Numeric(digits=(20, 2), default=None)
    requested = Numeric(digits=(20, 2), default=None)
    approved = Numeric(digits=(20, 2), default=None)
    paid = Numeric(digits=(20, 2), default=None)
    version = BigInt(default=None)
    created_at = Timestamptz(default=None)
    updated_at = Timestamptz(default=None)


class UserTransactions(Table, db=ENGINE):
    """A transaction that the merchant's vendor feed shows: earned, spent, requested or paid. Append-only."""

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    user_id = UUID(default=None)
    type = Text(default=None)
    amount = Numeric(digits=(20, 2), default=None)
    reference = Text(null=True, default=None)
    transfer_id = UUID(null=True, default=None)
    payout_id = UUID(null=True, default=None)
    created_at = Timestamptz(default=None)
