"""Replace a merchant's world by a bundle, in the caller's transaction, and refuse a bundle whose books do not balance."""

import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import msgspec
from asyncpg import Record

from sandbox.domain import redaction
from sandbox.domain.errors import Problem, invalid, invalid_fields
from sandbox.domain.redaction import Address, Secret
from sandbox.infrastructure.db.connector import Connection
from sandbox.infrastructure.db.copy_target import copy_target
from sandbox.infrastructure.db.engine import CONNECTION_ERRORS, RETRYABLE, plan_by_statistics
from sandbox.infrastructure.db.statements import read_statements
from sandbox.infrastructure.secrets_at_rest import SecretBox
from sandbox.webhooks.delivery.signer import secret_columns
from sandbox.webhooks.signing.dialects import secret_for, shares_secrets
from sandbox.worlds.audit.service import check as audit
from sandbox.worlds.bundles.format import DERIVED
from sandbox.worlds.bundles.reading import MAX_ERRORS, CheckedBundle, TableRows, metadata_pairs
from sandbox.worlds.snapshots.store import clear_world

_COPY_SECONDS: Final = 120.0
_LINE: Final = re.compile(r"COPY \w+, line ([0-9]+)")
_SHARD_ID: Final = re.compile(r"_[0-9]{6,}$")
"""The end of the names of tables and constraints in a shard of a distributed database."""

_SQL: Final = read_statements(__name__)


class ImportedEndpoint(msgspec.Struct):
    """A webhook endpoint of an imported world. `secret` is null if the endpoint kept its secret, or signs with `public_key`."""

    id: str
    url: Address
    secret: Secret | None
    public_key: str | None


class _Kept(msgspec.Struct):
    """Secrets that the merchant keeps across the import: those of its endpoints, and its vendor's headers."""

    endpoints: Mapping[str, Any]
    vendor: Any


async def import_world(conn: Connection, box: SecretBox, merchant_id: str, checked: CheckedBundle) -> list[ImportedEndpoint]:
    """Replace the world's rows, clock, ids and settings. The caller holds the merchant's lock. Returns its endpoints.

    Raises VALIDATION_ERROR if the database or the audit refuses the bundle. Nothing has changed then.
    """
    async with _undone_if_refused(conn):
        kept = _Kept(
            {str(record["id"]): record for record in await conn.fetch(_SQL["secrets"], merchant_id)},
            await conn.fetchrow(_SQL["vendor"], merchant_id),
        )
        await clear_world(conn, merchant_id)
        endpoints, columns = _with_secrets(box, merchant_id, checked.tables["webhook_endpoints"], kept.endpoints)
        cursors = _with_headers(checked.tables["vendor_cursors"], kept.vendor)
        replaced = {"webhook_endpoints": columns, "vendor_cursors": cursors}
        for name, rows in checked.tables.items():
            await _insert(conn, merchant_id, name, replaced.get(name, rows))
        pairs = TableRows(("pair", "payout_id"), metadata_pairs(checked.tables["payouts"]))
        await _insert(conn, merchant_id, DERIVED, pairs)
        await _set_state(conn, merchant_id, checked)
        await _audit(conn, merchant_id)
    return endpoints


@asynccontextmanager
async def _undone_if_refused(conn: Connection) -> AsyncIterator[None]:
    """Undo the block if the bundle is refused. A refusal can be stored in the same transaction, so that must stay usable."""
    await conn.execute("SAVEPOINT before_import")
    try:
        yield
    except (*RETRYABLE, *CONNECTION_ERRORS):
        raise
    except Problem:
        await conn.execute("ROLLBACK TO SAVEPOINT before_import")
        raise
    except asyncpg.PostgresError as error:
        await conn.execute("ROLLBACK TO SAVEPOINT before_import")
        raise _refused(error) from error
    await conn.execute("RELEASE SAVEPOINT before_import")


def _refused(error: asyncpg.PostgresError) -> Problem:
    """Return the refusal of a row by the database. Its own message may quote the row, so name only the constraint."""
    line = _LINE.search(getattr(error, "context", None) or "")
    table = getattr(error, "table_name", None)
    place = f"tables.{_SHARD_ID.sub('', table)}" if table else "tables"
    constraint = getattr(error, "constraint_name", None)
    what = (
        f"violates the constraint {_SHARD_ID.sub('', constraint)}"
        if constraint
        else f"is refused by the database ({error.sqlstate})"
    )
    return invalid(f"{place}.rows[{int(line[1]) - 1}]" if line is not None else place, what)


async def _insert(conn: Connection, merchant_id: str, table: str, rows: TableRows) -> None:
    if rows.rows:
        name, schema = await copy_target(conn, table)
        await conn.copy_records_to_table(
            name,
            schema_name=schema,
            records=[(merchant_id, *row) for row in rows.rows],
            columns=["merchant_id", *rows.columns],
            timeout=_COPY_SECONDS,
        )


async def _set_state(conn: Connection, merchant_id: str, checked: CheckedBundle) -> None:
    merchant, settings = checked.bundle.merchant, checked.bundle.merchant.settings
    await conn.execute(
        _SQL["set_world"],
        merchant_id,
        merchant.seed,
        checked.bundle.id_counter,
        checked.frozen_at,
        checked.offset,
        settings.default_scenario.lower(),
        settings.approvals_expire_after,
        settings.review_threshold,
    )
    await conn.execute(
        _SQL["set_merchant"],
        merchant_id,
        merchant.name,
        merchant.seed,
        merchant.opening_balance,
        checked.begins_at,
        settings.rate_limit,
    )


async def _audit(conn: Connection, merchant_id: str) -> None:
    await plan_by_statistics(conn)
    await conn.execute("SET LOCAL enable_nestloop = off")
    report = await audit(conn, merchant_id)
    errors = [
        ("tables", f"fail the audit's check {check.name}: {problem}") for check in report.checks for problem in check.problems
    ]
    if errors:
        raise invalid_fields(errors[:MAX_ERRORS])


def _with_secrets(
    box: SecretBox, merchant_id: str, rows: TableRows, known: "Mapping[str, Record]"
) -> tuple[list[ImportedEndpoint], TableRows]:
    """Return the endpoints, and their rows with secrets: those of endpoints that the merchant had, and new ones."""
    added = ("secret", "previous_secrets", "public_key")
    endpoints, found = [], []
    url_place = rows.columns.index("url") if rows.rows else 0
    for row in rows.rows:
        cells = dict(zip(rows.columns, row, strict=True))
        endpoint_id, url, signing = str(cells["id"]), cells["url"], cells["signing"]
        before = known.get(endpoint_id)
        if before is not None and shares_secrets(before["signing"], signing):
            # A bundle hides parts of the URL that may be secret; the merchant has the whole URL.
            url = before["url"] if redaction.address(before["url"]) == url else url
            values = tuple(before[name] for name in added)
            endpoints.append(ImportedEndpoint(endpoint_id, url, None, before["public_key"]))
        else:
            secret = secret_for(signing, os.urandom(32))
            columns = secret_columns(box, merchant_id, endpoint_id, secret)
            values = (columns["secret"], None, columns["public_key"])
            shown = None if columns["public_key"] is not None else secret
            endpoints.append(ImportedEndpoint(endpoint_id, url, shown, columns["public_key"]))
        found.append((*row[:url_place], url, *row[url_place + 1 :], *values))
    return endpoints, TableRows((*rows.columns, *added), found)


def _with_headers(rows: TableRows, known: Record | None) -> TableRows:
    """Return the aggregator's cursor with the vendor's headers, if the merchant already used that vendor."""
    if known is None or known["url"] is None or [known["url"]] != list(rows.values("url")):
        return rows
    return TableRows((*rows.columns, "headers"), [(*row, known["headers"]) for row in rows.rows])
