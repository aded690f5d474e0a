"""The format of a world bundle: a merchant's whole world as one JSON document, without keys and secrets."""

from decimal import Decimal
from typing import Annotated, Any, Final, Literal

import msgspec

from sandbox.domain.fields import Name, Time
from sandbox.http.journal.journal import JournalEntry
from sandbox.worlds.merchants.tables import WORLD, WORLDS_TABLE

FORMAT: Final = "psp.world"
VERSION: Final = 1
MEDIA_TYPE: Final = "application/vnd.psp.world+json"
MAX_BYTES: Final = 64 * 1024 * 1024

DERIVED: Final = "payout_metadata"
"""A search index over the payouts' metadata. An import computes it again."""
BUNDLED: Final = tuple(table for table in reversed(WORLD) if table not in (WORLDS_TABLE, DERIVED))
"""The tables of a bundle: a referenced table comes before those that refer to it."""

LEFT_OUT: Final = {
    "webhook_endpoints": frozenset({"secret", "previous_secrets", "public_key", "rate_free_at"}),
    "webhook_deliveries": frozenset({"leased_until"}),
    "vendor_cursors": frozenset({"headers", "fetch_id"}),
}
"""Columns that no bundle contains: secrets, and claims of work that a process was doing in the host's time."""
ADDRESSES: Final = frozenset({("webhook_endpoints", "url"), ("webhook_attempts", "url"), ("vendor_cursors", "url")})
"""Columns with URLs. A bundle shows them as the journal does, because a query may contain a token."""


class BundleSettings(msgspec.Struct, forbid_unknown_fields=True):
    """The merchant's settings, as in `GET /settings`."""

    default_scenario: Literal["SUCCESS", "PENDING", "FAILED"]
    review_threshold: Decimal | None
    rate_limit: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None
    approvals_expire_after: Annotated[int, msgspec.Meta(ge=1, le=3650 * 86400)] | None


class BundleMerchant(msgspec.Struct, forbid_unknown_fields=True):
    """The merchant as it was created, and its settings. Its id, keys and secrets are not in a bundle."""

    name: Name
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None
    opening_balance: Decimal | None
    frozen_at: Time | None
    """The time at which its clock was frozen when it was created."""
    settings: BundleSettings


Seconds = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^-?[0-9]{1,12}\.[0-9]{6}\Z", extra={"must": "a number of seconds with six decimal places, in a string"}
    ),
]
"""Seconds to the microsecond, as a string, because a JSON number may be rounded."""


class BundleClock(msgspec.Struct, forbid_unknown_fields=True):
    """The merchant's clock: frozen at a time, or `offset_seconds` ahead of the host's."""

    frozen_at: Time | None
    offset_seconds: Seconds


class BundleJournal(msgspec.Struct, forbid_unknown_fields=True):
    """The journal of API calls, oldest first. `complete` says whether it still begins with the merchant's first call."""

    complete: bool
    calls: list[JournalEntry]


class BundleTable(msgspec.Struct, forbid_unknown_fields=True):
    """The rows of a table, in the order of its primary key. The merchant's id is not one of the columns."""

    columns: list[str]
    rows: list[list[Annotated[Any, msgspec.Meta(description="The value of a column, as JSON.")]]]


class Bundle(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A merchant's whole world. Money is in decimal strings, times are RFC 3339, and JSON columns are JSON."""

    format: Literal["psp.world"]
    version: Literal[1]
    sandbox: str
    """The version of the sandbox that exported it."""
    created_at: Time
    merchant: BundleMerchant
    clock: BundleClock
    id_counter: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    """The number of ids that the merchant has reserved so far. With a seed, it determines all later ids."""
    journal: BundleJournal
    tables: dict[str, BundleTable]


def encode(bundle: Bundle) -> bytes:
    """Return a bundle as JSON with one line per row, so that two bundles can be compared with diff."""
    parts = [
        (name, msgspec.json.encode(getattr(bundle, name)))
        for name in bundle.__struct_fields__
        if name not in ("journal", "tables")
    ]
    lines = [f"{msgspec.json.encode(name).decode()}: ".encode() + value for name, value in parts]
    calls = _list(bundle.journal.calls, 3)
    lines.append(b'"journal": {"complete": %s, "calls": %s}' % (msgspec.json.encode(bundle.journal.complete), calls))
    tables = b",\n".join(_table(name, table) for name, table in bundle.tables.items())
    lines.append(b'"tables": {\n%s\n  }' % tables)
    return b"{\n  " + b",\n  ".join(lines) + b"\n}\n"


def _table(name: str, table: BundleTable) -> bytes:
    columns = msgspec.json.encode(table.columns)
    return b'    "%s": {"columns": %s, "rows": %s}' % (name.encode(), columns, _list(table.rows, 3))


def _list(items: list[Any], depth: int) -> bytes:
    if not items:
        return b"[]"
    indent = b"\n" + b"  " * depth
    return b"[" + indent + (b"," + indent).join(map(msgspec.json.encode, items)) + b"\n" + b"  " * (depth - 1) + b"]"
