"""A bulk credit as the API shows it: the activity and its rows. Pure."""

from collections.abc import Mapping
from typing import Any, Final, get_args

import msgspec

from sandbox.domain.enumerations import ItemStatus
from sandbox.domain.shown import shown

UPLOADED: Final = "UPLOADED"
PROCESSING: Final = "PROCESSING"
COMPLETED: Final = "COMPLETED"
PARTIALLY_COMPLETED: Final = "PARTIALLY_COMPLETED"
FAILED: Final = "FAILED"
ITEM_STATUSES: Final[tuple[ItemStatus, ...]] = get_args(ItemStatus)


class Counts(msgspec.Struct):
    """Row counts by outcome. `duplicates` counts the rows that equal an earlier row, whatever their outcome."""

    total: int
    invalid: int
    duplicates: int
    succeeded: int
    failed: int


class Accepted(msgspec.Struct):
    """An accepted bulk credit."""

    activity_id: str
    status: str


class Activity(msgspec.Struct):
    """A bulk credit. The counts appear both in `counts` and as separate fields, and grow while it is processed."""

    activity_id: str
    status: str
    total: int
    invalid: int
    duplicates: int
    succeeded: int
    failed: int
    counts: Counts
    created_at: str
    completed_at: str | None


class Item(msgspec.Struct):
    """A row of the file. `same_as_line` is the first earlier line with the same user and amount, or null."""

    line: int
    uuid: str
    amount: str
    status: str
    error: str | None
    transfer_id: str | None
    same_as_line: int | None


COLUMNS: Final = (
    "id::text AS id, status, total, invalid, duplicates, succeeded, failed, request_id, traceparent, created_at, completed_at"
)
"""The columns of `bulk_credits` that `to_activity` reads."""


def to_activity(record: Mapping[str, Any]) -> Activity:
    """Return an activity from a record with COLUMNS."""
    return shown(Activity, record, activity_id=record["id"], counts=shown(Counts, record))


def status_when_done(total: int, succeeded: int, failed: int) -> str:
    """Return the status of an activity once all its rows are processed.

    Invalid rows do not count as failed, but a file with only invalid rows is FAILED. An empty file is COMPLETED.
    """
    if failed:
        return PARTIALLY_COMPLETED if succeeded else FAILED
    return FAILED if total and not succeeded else COMPLETED
