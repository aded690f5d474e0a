"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedBulkCredit:
    """An accepted bulk credit."""

    activity_id: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkCreditCounts:
    """Row counts by outcome. `duplicates` counts the rows that equal an earlier row, whatever their outcome."""

    total: int
    invalid: int
    duplicates: int
    succeeded: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkCredit:
    """A bulk credit. The counts appear both in `counts` and as separate fields, and grow while it is processed."""

    activity_id: str
    status: str
    total: int
    invalid: int
    duplicates: int
    succeeded: int
    failed: int
    counts: BulkCreditCounts
    created_at: datetime
    completed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkCreditItem:
    """A row of the file. `same_as_line` is the first earlier line with the same user and amount, or null."""

    line: int
    uuid: str
    amount: str
    status: str
    error: str | None
    transfer_id: str | None
    same_as_line: int | None
