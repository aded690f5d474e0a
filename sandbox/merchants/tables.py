"""The tables of merchants and their keys, and the list of all tables that hold a merchant's rows."""

from typing import Final

from piccolo.columns import UUID, BigInt, Bytea, Integer, Numeric, Text, Timestamptz
from piccolo.table import Table

from sandbox.db.engine import ENGINE


class Merchants(Table, db=ENGINE):
    """A merchant. The secrets are sealed."""

    merchant_id = UUID(primary_key=True, default=None)
    name = Text(default=None)
    currency = Text(default="PKR")
    seed = BigInt(null=True, default=None)
    ipn_secret = Bytea(default=None)
    webhook_secret = Bytea(default=None)
    created_at = Timestamptz(default=None)
    rate_limit = Integer(null=True, default=None)
    clock_held_by = UUID(null=True, default=None)
    clock_held_until = Timestamptz(null=True, default=None)
    opening_balance = Numeric(digits=(20, 2), null=True, default=None)
    begins_at = Timestamptz(null=True, default=None)


class ApiKeys(Table, db=ENGINE):
    """An API key of a merchant's, as its SHA-256."""

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    key_hash = Bytea(default=None)
    role = Text(default=None)
    name = Text(default=None)
    created_at = Timestamptz(default=None)
    revoked_at = Timestamptz(null=True, default=None)


ENDPOINTS: Final = "webhook_endpoints"

LOCKED_BY_OTHERS: Final = ("vendor_cursors", "webhook_deliveries")
"""Whose rows are locked by those who work without the merchant's lock: by the aggregator, and by whoever records attempts.

They go first, and only a later statement takes what the two wrote meanwhile: it is whole then, and nothing new is begun.
"""

LOCK: Final = "worlds"
"""Its row is the merchant's lock, and is changed in place: a transaction that waits for a row that goes finds no merchant."""

WORLD: Final = (
    *LOCKED_BY_OTHERS,
    "vendor_transactions",
    "vendor_balances",
    "vendor_dead_letters",
    "bulk_credit_items",
    "bulk_credits",
    "sale_payments",
    "sales",
    "user_transactions",
    "users",
    "webhook_attempts",
    ENDPOINTS,
    "events",
    "transfers",
    "scenario_rules",
    "faults",
    "payout_metadata",
    "payouts",
    "idempotency_keys",
    "accounts",
    LOCK,
)
"""A merchant's world: a snapshot holds all of it. A reset empties all of it but the endpoints, and resets the row of LOCK."""

TABLES: Final = (
    *WORLD,
    # Calls that were really made of vendors: nothing takes them back, and the limit on such calls counts them.
    "vendor_fetches",
    "snapshot_rows",
    "snapshots",
    "api_keys",
    "merchants",
)
"""All that belongs to a merchant, in an order that foreign keys allow: what names others comes before what it names.

Only attempts come behind the deliveries that they name, which take them along.
"""
