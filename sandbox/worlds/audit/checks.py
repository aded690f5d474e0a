"""The audit's SQL statements. Each statement reads one consistent snapshot.

Statements over payouts, transfers, references or idempotency keys take a window as parameters and read it by an index, so that
none runs long, however many rows there are. $1 is the merchant and $2 the maximum number of problems in every statement but
LAST_OF_WINDOW.
"""

from typing import Final

from sandbox.infrastructure.db.statements import read_statements

_SQL: Final = read_statements(__name__)
BALANCES: Final = _SQL["balances"]
SUM_IS_ZERO: Final = _SQL["sum_is_zero"]
LOCKED: Final = _SQL["locked"]
TRANSFERS: Final = _SQL["transfers"]
CHAIN: Final = _SQL["chain"]
CHAIN_BY_TIME: Final = CHAIN.format(place="id")
# Orders by the merchant's counter inside the id, which is the order of commits. After 48 bits of time and 4 of version come the
# counter's high bits, then 2 constant bits, then its low bits.
CHAIN_BY_COUNTER: Final = CHAIN.format(place="substring(uuid_send(id) FROM 7)")

LAST_OF_WINDOW: Final = _SQL["last_of_window"]
PAYOUTS: Final = _SQL["payouts"]
IDEMPOTENCY: Final = _SQL["idempotency"]

REFERENCES: Final = {
    f"{table}.{column}": _SQL["references"].format(table=table, column=column, referenced=referenced)
    for table, column, referenced in (
        ("transfers", "payout_id", "payouts"),
        ("events", "payout_id", "payouts"),
        ("webhook_deliveries", "event_id", "events"),
        ("webhook_attempts", "delivery_id", "webhook_deliveries"),
        ("user_transactions", "user_id", "users"),
        ("bulk_credit_items", "activity_id", "bulk_credits"),
    )
}

USERS: Final = _SQL["users"]
SALES: Final = _SQL["sales"]
BULK_CREDITS: Final = _SQL["bulk_credits"]
