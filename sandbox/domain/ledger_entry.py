"""A ledger entry as the API shows it. Pure."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, get_args

import msgspec

from sandbox.domain.enumerations import Account
from sandbox.domain.fields import one_of
from sandbox.domain.shown import shown

ENTRY_COLUMNS: Final = (
    "id::text AS transfer_id, debit_account, credit_account, amount, debit_balance_after, credit_balance_after, reason, "
    "payout_id::text AS payout_id, description, created_at"
)
"""The columns of `transfers` that `ledger_entries` needs."""


class LedgerEntry(msgspec.Struct):
    """One side of a transfer, on one of the merchant's accounts (AVAILABLE, LOCKED) or on a user's WALLET."""

    id: str
    transfer_id: str
    account: Annotated[str, one_of((*get_args(Account), "WALLET"))]
    direction: Annotated[str, one_of(("DEBIT", "CREDIT"))]
    amount: Decimal
    balance_after: Decimal
    reason: str
    payout_id: str | None
    description: str
    created_at: str


def ledger_entries(record: Mapping[str, Any]) -> list[LedgerEntry]:
    """Return both entries of a transfer, the credit first. `record` has ENTRY_COLUMNS."""
    return [
        shown(
            LedgerEntry,
            record,
            id=f"{record['transfer_id']}:{side}",
            account=record[f"{side}_account"],
            direction=side.upper(),
            balance_after=record[f"{side}_balance_after"],
        )
        for side in ("credit", "debit")
    ]
