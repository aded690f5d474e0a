"""The tables that hold a merchant's rows, in an order that its foreign keys allow: what names others before what it names.

Only attempts come behind the deliveries that they name, which take them along.
"""

from typing import Final

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
"""All that belongs to a merchant."""
