"""The tables of merchants and API keys, and the list of all tables with a merchant's rows.

In every `tables.py`, each column of a table's key has `primary_key=True`. Piccolo's methods that find a row by its key (`save`,
`remove`, `refresh`) use only the last of these columns. So use `select`, `update` and `delete`, with the merchant's id. With
`default=None`, Piccolo refuses to create a row without the value. Its own defaults are the host's time and random ids.
"""

from typing import Final

from piccolo.columns import UUID, BigInt, Bytea, Integer, Numeric, Text, Timestamptz
from piccolo.table import Table

from sandbox.infrastructure.db.engine import ENGINE


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
    """A merchant's API key. `key_hash` is the key's SHA-256."""

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    key_hash = Bytea(default=None)
    role = Text(default=None)
    name = Text(default=None)
    created_at = Timestamptz(default=None)
    revoked_at = Timestamptz(null=True, default=None)


ENDPOINTS: Final = "webhook_endpoints"

LOCKED_BY_OTHERS: Final = ("vendor_cursors", "webhook_deliveries")
"""Tables whose rows are also locked without the merchant's lock: by the aggregator, and when webhook attempts are recorded.

Delete their rows first, in a separate statement, which waits for both writers. A later statement then sees and deletes
everything that they wrote, and neither of them can start anything new.
"""

WORLDS_TABLE: Final = "worlds"
"""The table whose row is the merchant's lock. The row is only updated, never deleted and inserted again: a transaction that
waits for the lock would otherwise find no merchant.
"""

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
    WORLDS_TABLE,
)
"""The tables of a merchant's world. A snapshot contains all of them. A reset empties all but ENDPOINTS and WORLDS_TABLE,
whose row it sets to its defaults.
"""

TABLES: Final = (
    *WORLD,
    # Not part of the world: calls to real vendors cannot be undone, and they count towards the vendor's rate limit.
    "vendor_fetches",
    # Not part of the world either: they describe a receiver outside the sandbox.
    "receiver_tests",
    "snapshot_rows",
    "snapshots",
    "console_sign_outs",
    "api_keys",
    "merchants",
)
"""All tables with a merchant's rows, in an order of deletion that foreign keys allow: a referencing table comes before the
referenced one. Most references have no foreign key, so deletions do not cascade, and every table must be listed here.
"""
