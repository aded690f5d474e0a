"""The tables of payouts."""

from piccolo.columns import JSONB, UUID, Integer, Numeric, Text, Timestamptz
from piccolo.table import Table

from sandbox.db.engine import ENGINE


class Payouts(Table, db=ENGINE):
    """A payout. `step` is the next step of its scenario, `due_at` when it runs."""

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    merchant_reference = Text(default=None)
    amount = Numeric(digits=(20, 2), default=None)
    currency = Text(default=None)
    dest_type = Text(default=None)
    bank_code = Text(null=True, default=None)
    wallet_code = Text(null=True, default=None)
    account_number = Text(default=None)
    account_title = Text(null=True, default=None)
    status = Text(default=None)
    scenario = Text(default=None)
    failure_code = Text(null=True, default=None)
    failure_reason = Text(null=True, default=None)
    psp_reference = Text(null=True, default=None)
    attempts = Integer(default=None)
    metadata = JSONB(default=None)
    user_id = UUID(null=True, default=None)
    step = Integer(default=None)
    due_at = Timestamptz(null=True, default=None)
    changes = Integer(default=None)
    request_id = Text(default=None)
    created_at = Timestamptz(default=None)
    updated_at = Timestamptz(default=None)
    processed_at = Timestamptz(null=True, default=None)
    path = JSONB(null=True, default=None)
    scenario_header = Text(null=True, default=None)
    traceparent = Text(null=True, default=None)


class PayoutMetadata(Table, db=ENGINE):
    """One key-value pair of a payout's metadata, as a hash."""

    merchant_id = UUID(primary_key=True, default=None)
    pair = UUID(primary_key=True, default=None)
    payout_id = UUID(primary_key=True, default=None)
