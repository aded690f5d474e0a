"""Read a merchant's whole world as a bundle. The export leaves out every key and secret."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.metadata import version
from typing import Any, Final

import msgspec
from asyncpg import Record

from sandbox.domain import redaction
from sandbox.domain.clock import render, truncate
from sandbox.domain.errors import Problem
from sandbox.domain.idempotency import UNFINISHED
from sandbox.http.journal.journal import ENTRIES_KEPT, JournalEntry
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.engine import plan_by_statistics
from sandbox.infrastructure.db.statements import read_statements
from sandbox.worlds.bundles.columns import TableShape, read_tables, render_time, renderer
from sandbox.worlds.bundles.format import (
    ADDRESSES,
    FORMAT,
    VERSION,
    Bundle,
    BundleClock,
    BundleJournal,
    BundleMerchant,
    BundleSettings,
    BundleTable,
)
from sandbox.worlds.snapshots.store import MAX_SNAPSHOT_ROWS, count_rows

_SQL: Final = read_statements(__name__)
_FILTERS: Final[Mapping[str, str]] = {
    # Requests that are still running continue in this sandbox only.
    "idempotency_keys": f" AND status <> {UNFINISHED}",
}


class Exported(msgspec.Struct):
    """A world as read from the database: its row of `worlds` and `merchants`, and the rows of its other tables."""

    world: Any
    tables: list[tuple[TableShape, list[Any]]]


async def read_world(conn: Connection, merchant_id: str) -> Exported:
    """Read a world in the caller's transaction, which should see one snapshot.

    Raises NOT_FOUND if the merchant was deleted, INVALID_STATE if it has more than MAX_SNAPSHOT_ROWS rows.
    """
    await plan_by_statistics(conn)
    world = await conn.fetchrow(_SQL["world"], merchant_id)
    if world is None:
        raise Problem("NOT_FOUND", "This merchant was deleted.")
    if await count_rows(conn, merchant_id) > MAX_SNAPSHOT_ROWS:
        raise Problem("INVALID_STATE", f"A bundle has at most {MAX_SNAPSHOT_ROWS} rows; this merchant has more.")
    tables = []
    for name, table in (await read_tables(conn)).items():
        columns = ", ".join(f'"{column.name}"' for column in table.columns)
        order = ", ".join(f'"{column}"' for column in table.order) or "merchant_id"
        statement = f"SELECT {columns} FROM {name} WHERE merchant_id = $1{_FILTERS.get(name, '')} ORDER BY {order}"  # noqa: S608 -- names of the database's own columns
        tables.append((table, await conn.fetch(statement, merchant_id)))
    return Exported(world, tables)


def to_bundle(exported: Exported, calls: list[JournalEntry], wall_now: datetime) -> Bundle:
    """Return the bundle of a world. `calls` is the whole journal, oldest first. Takes seconds for a large world."""
    world = exported.world
    after = world["approvals_expire_after"]
    return Bundle(
        format=FORMAT,
        version=VERSION,
        sandbox=version("psp-sandbox"),
        created_at=render(truncate(wall_now)),
        merchant=BundleMerchant(
            name=world["name"],
            seed=world["seed"],
            opening_balance=world["opening_balance"],
            frozen_at=_time(world["begins_at"]),
            settings=BundleSettings(
                default_scenario=world["default_scenario"].upper(),
                review_threshold=world["review_threshold"],
                rate_limit=world["rate_limit"],
                approvals_expire_after=None if after is None else int(after.total_seconds()),
            ),
        ),
        clock=BundleClock(
            frozen_at=_time(world["clock_frozen_at"]),
            offset_seconds=f"{Decimal(world['clock_offset'] // timedelta(microseconds=1)) / 1_000_000:.6f}",
        ),
        id_counter=world["id_sequence"],
        journal=BundleJournal(complete=len(calls) < ENTRIES_KEPT, calls=calls),
        tables={table.name: _table(table, records) for table, records in exported.tables},
    )


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else render_time(moment.astimezone(UTC))


def _table(table: TableShape, records: list[Record]) -> BundleTable:
    renderers = [_renderer(table.name, column) for column in table.columns]
    rows = [
        [
            value if value is None or to_json is None else to_json(value)
            for value, to_json in zip(record, renderers, strict=True)
        ]
        for record in records
    ]
    return BundleTable([column.name for column in table.columns], rows)


def _renderer(table: str, column: Any) -> Callable[[Any], Any] | None:
    if (table, column.name) in ADDRESSES:
        return redaction.address
    if (table, column.name) == ("idempotency_keys", "body"):
        return _stored_body
    return renderer(column)


def _stored_body(body: bytes) -> str | None:
    """Return a stored response, or None if it contains a secret or a URL that may contain one."""
    try:
        # A response with a secret is encrypted, so it is not UTF-8, or not JSON.
        text = body.decode()
        content = msgspec.json.decode(text) if text else None
    except (UnicodeDecodeError, msgspec.MsgspecError):
        return None
    return None if redaction.has_secret(text) or _shows_hidden_url(content) else text


def _shows_hidden_url(content: Any) -> bool:
    if isinstance(content, dict):
        return any(
            redaction.address(item) != item if name.endswith("url") and isinstance(item, str) else _shows_hidden_url(item)
            for name, item in content.items()
        )
    return isinstance(content, list) and any(map(_shows_hidden_url, content))
