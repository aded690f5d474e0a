"""The tables that hold a merchant's rows, in an order that its foreign keys allow: what names others before what it names."""

from typing import Final

ENDPOINTS: Final = "webhook_endpoints"

WORLD: Final = (
    # First the row that the aggregator locks: what it is writing is then whole, and it begins nothing new.
    "vendor_cursors",
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
    "webhook_deliveries",
    ENDPOINTS,
    "events",
    "transfers",
    "scenario_rules",
    "faults",
    "payouts",
    "idempotency_keys",
    "accounts",
)
"""What happened in a merchant's world: a snapshot holds all of it, and a reset empties all of it but the endpoints."""

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
