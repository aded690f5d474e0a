"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A vendor's row that could not be parsed, as received."""

    id: str
    raw: str
    reason: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """A call to the vendor and its outcome: RUNNING, SUCCEEDED or FAILED."""

    id: str
    url: str
    page: int
    at: datetime
    outcome: str
    status: int | None
    rows: int | None
    new_rows: int | None
    dead_letters: int | None
    duration_ms: int | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The number of dead letters that could be parsed this time, and the number that remain."""

    replayed: int
    remaining: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The source of transactions. Without a `url`, it is the sandbox's own feed. Header values are not shown."""

    url: str | None
    header_names: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpaidRequests:
    """The amount that a user has requested but not been paid."""

    user_id: str
    requested_payout: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorBalance:
    """A user's totals according to the vendor: `balance` = earned − spent − paid_out."""

    user_id: str
    balance: Decimal
    earned: Decimal
    spent: Decimal
    payout: Decimal
    paid_out: Decimal
