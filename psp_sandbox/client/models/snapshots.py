"""Results."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A restored snapshot, and the merchant's clock after the restore."""

    restored: bool
    id: str
    name: str
    rows: int
    now: datetime
    frozen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot: `rows` in all tables, `size` in bytes before compression, `clock_at` the merchant's time at the
    snapshot.
    """

    id: str
    name: str
    created_at: datetime
    clock_at: datetime
    rows: int
    size: int
