"""The tables of sales."""

from piccolo.columns import UUID, Boolean, Integer, Numeric, Text, Timestamptz
from piccolo.table import Table

from sandbox.db.engine import ENGINE


class Sales(Table, db=ENGINE):
    """A sale that a user made."""

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    user_id = UUID(default=None)
    brand = Text(default=None)
    earning = Numeric(digits=(20, 2), default=None)
    status = Text(default=None)
    advance_amount = Numeric(digits=(20, 2), null=True, default=None)
    final_amount = Numeric(digits=(20, 2), null=True, default=None)
    advance_due = Boolean(default=None)
    final_due = Boolean(default=None)
    created_at = Timestamptz(default=None)
    reconciled_at = Timestamptz(null=True, default=None)
    attempts = Integer(null=True, default=None)
    last_error = Text(null=True, default=None)
    due_at = Timestamptz(null=True, default=None)


class SalePayments(Table, db=ENGINE):
    """An advance or a final payment for a sale. Append-only."""

    merchant_id = UUID(primary_key=True, default=None)
    sale_id = UUID(primary_key=True, default=None)
    kind = Text(primary_key=True, default=None)
    amount = Numeric(digits=(20, 2), default=None)
    transfer_id = UUID(null=True, default=None)
    created_at = Timestamptz(default=None)
