"""The tables that every unit of work uses: worlds (each row is its merchant's lock), ledger, events and idempotency keys.

In every `tables.py`, each column of a table's key has `primary_key=True`. Piccolo's methods that find a row by its key (`save`,
`remove`, `refresh`) use only the last of these columns. So use `select`, `update` and `delete`, with the merchant's id. With
`default=None`, Piccolo refuses to create a row without the value. Its own defaults are the host's time and random ids.
"""

from datetime import timedelta
from decimal import Decimal

from piccolo.columns import UUID, BigInt, Bytea, Integer, Interval, Numeric, Text, Timestamptz
from piccolo.table import Table

from sandbox.db.engine import ENGINE


class Worlds(Table, db=ENGINE):
    """A merchant's id counter, clock and settings. The row is the merchant's lock. `seed` is copied from `merchants`."""

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
    """A movement of money from one account to another. Append-only."""

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
    """The events that webhooks deliver. A payout's events are also its timeline. Append-only."""

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
    traceparent = Text(null=True, default=None)


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
    """The stored response to the operator's request with this idempotency key.

    `merchant_id` is no merchant's: it is a slot that depends on the key alone (sandbox/unit_of_work/operator.py).
    """

    merchant_id = UUID(primary_key=True, default=None)
    key = Text(primary_key=True, default=None)
    fingerprint = Bytea(default=None)
    status = Integer(default=None)
    body = Bytea(default=None)
    location = Text(null=True, default=None)
    expires_at = Timestamptz(default=None)
