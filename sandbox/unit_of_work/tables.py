"""The world's row, which is the merchant's lock, and what every unit of work writes: ledger, events and idempotency keys.

Here as in every `tables.py`, `primary_key` stands at each column of the table's key. Piccolo's methods that look a row up by
its key (`save`, `remove`, `refresh`) know the last of them alone: use `select`, `update` and `delete` with the merchant named.
With `default=None` Piccolo makes no row unless it is given the value; its own defaults are the host's time and random ids.
"""

from datetime import timedelta
from decimal import Decimal

from piccolo.columns import UUID, BigInt, Bytea, Integer, Interval, Numeric, Text, Timestamptz
from piccolo.table import Table

from sandbox.db.engine import ENGINE


class Worlds(Table, db=ENGINE):
    """A merchant's id counter, clock and settings. The row is the merchant's lock. `seed` is a copy of the merchant's."""

    merchant_id = UUID(primary_key=True, default=None)
    seed = BigInt(null=True, default=None)
    id_sequence = BigInt(default=0)
    clock_frozen_at = Timestamptz(null=True, default=None)
    clock_offset = Interval(default=timedelta())
    default_scenario = Text(default="success")
    approvals_expire_after = Interval(null=True, default=None)
    review_threshold = Numeric(digits=(14, 2), null=True, default=Decimal("100000.00"))


class Accounts(Table, db=ENGINE):
    """A ledger account and its balance, of the merchant or of a user's wallet."""

    merchant_id = UUID(primary_key=True, default=None)
    account = Text(primary_key=True, default=None)
    balance = Numeric(digits=(20, 2), default=None)
    version = BigInt(default=None)
    updated_at = Timestamptz(default=None)


class Transfers(Table, db=ENGINE):
    """A movement of money from one account to another. Only ever added to."""

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    debit_account = Text(default=None)
    credit_account = Text(default=None)
    amount = Numeric(digits=(20, 2), default=None)
    debit_balance_after = Numeric(digits=(20, 2), default=None)
    credit_balance_after = Numeric(digits=(20, 2), default=None)
    reason = Text(default=None)
    payout_id = UUID(null=True, default=None)
    description = Text(default=None)
    created_at = Timestamptz(default=None)


class Events(Table, db=ENGINE):
    """What happened, as webhooks tell it; for a payout it is the timeline too. Only ever added to."""

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    type = Text(default=None)
    body = Text(default=None)
    payout_id = UUID(null=True, default=None)
    change = Integer(null=True, default=None)
    from_status = Text(null=True, default=None)
    to_status = Text(null=True, default=None)
    cause = Text(default=None)
    scenario = Text(null=True, default=None)
    step = Integer(null=True, default=None)
    transfer_id = UUID(null=True, default=None)
    request_id = Text(default=None)
    created_at = Timestamptz(default=None)
    actor = UUID(null=True, default=None)


class IdempotencyKeys(Table, db=ENGINE):
    """The stored response to a merchant's request with this idempotency key."""

    merchant_id = UUID(primary_key=True, default=None)
    key = Text(primary_key=True, default=None)
    fingerprint = Bytea(default=None)
    status = Integer(default=None)
    body = Bytea(default=None)
    location = Text(null=True, default=None)
    expires_at = Timestamptz(default=None)


class OperatorKeys(Table, db=ENGINE):
    """The stored response to the operator's request with this idempotency key."""

    key = Text(primary_key=True, default=None)
    fingerprint = Bytea(default=None)
    status = Integer(default=None)
    body = Bytea(default=None)
    location = Text(null=True, default=None)
    expires_at = Timestamptz(default=None)
