"""Read a bundle that was uploaded, and check all that can be checked without the database's rows.

Nothing in a bundle is trusted: it may have been written by hand, or damaged.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from sandbox.domain.clock import parse
from sandbox.domain.errors import Problem, for_display, invalid, invalid_fields
from sandbox.domain.ids import is_uuid
from sandbox.domain.ledger import MERCHANT_ACCOUNTS
from sandbox.domain.payout import metadata_pair_id
from sandbox.http.body_errors import NUL, FieldProblem, suggestion
from sandbox.http.faults.requests import MAX_FAULTS
from sandbox.http.journal.journal import BODY_LIMIT, ENTRIES_KEPT, JournalEntry
from sandbox.payouts.scenarios.rules import MAX_RULES
from sandbox.webhooks.endpoints.service import MAX_ENDPOINTS
from sandbox.worlds.bundles.columns import Column, InvalidValueError, TableShape, read_time, read_value
from sandbox.worlds.bundles.format import FORMAT, VERSION, Bundle
from sandbox.worlds.bundles.row_checks import SEALED, RowChecker
from sandbox.worlds.snapshots.store import MAX_SNAPSHOT_ROWS

MAX_ERRORS: Final = 50
_MAX_AMOUNT: Final = Decimal("999999999999.99")
_MAX_OFFSET: Final = Decimal(7000 * 366 * 86400)
_MAX_ROWS: Final = {"webhook_endpoints": MAX_ENDPOINTS, "scenario_rules": MAX_RULES, "faults": MAX_FAULTS, "vendor_cursors": 1}
_COUNTED: Final = ("payouts", "transfers", "events", "users", "sales", "bulk_credits")
"""Tables whose ids come from the merchant's counter, and were not there before a reset."""
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]{0,300}\Z")
_PLACE: Final = re.compile(r"(.*?)(?: - at (?:key in )?`\$\.?(.*)`)?\Z", re.DOTALL)


class _Head(msgspec.Struct):
    format: Any = None
    version: Any = None


class _Rows(msgspec.Struct, forbid_unknown_fields=True):
    columns: list[str]
    rows: list[list[msgspec.Raw]]


class _Raw(Bundle, forbid_unknown_fields=True, kw_only=True):
    tables: dict[str, _Rows]  # type: ignore[assignment]  # the same JSON, but each value is decoded later, by its column


@dataclass(frozen=True, slots=True)
class TableRows:
    """A table's rows, with their values as the database driver takes them. `columns` are those of the bundle."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def values(self, column: str) -> Iterable[Any]:
        """Yield a column's values; none if the bundle does not have the column."""
        return (row[self.columns.index(column)] for row in self.rows) if column in self.columns else ()


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The body of an import, before its tables are checked."""

    bundle: _Raw
    content: bytes

    @property
    def digest(self) -> bytes:
        """The digest of the body, for idempotency."""
        return hashlib.sha256(self.content).digest()


@dataclass(frozen=True, slots=True)
class CheckedBundle:
    """A bundle whose parts are all well-formed."""

    bundle: Bundle
    tables: Mapping[str, TableRows]
    frozen_at: datetime | None
    """The clock's time, if it is frozen."""
    offset: timedelta
    begins_at: datetime | None

    @property
    def rows(self) -> int:
        """The number of rows, with that of the world itself."""
        return 1 + sum(len(table.rows) for table in self.tables.values())


def parse_bundle(content: bytes) -> Uploaded:
    """Parse an uploaded bundle. Raises MALFORMED_JSON, or VALIDATION_ERROR for another format or version, or a wrong field."""
    try:
        head = msgspec.json.decode(content, type=_Head)
    except msgspec.ValidationError:
        raise invalid("body", "must be a JSON object: a world bundle") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("MALFORMED_JSON", f"The body is not valid JSON in UTF-8: {for_display(str(error))}.") from None
    if head.format != FORMAT:
        raise invalid("format", f"must be {FORMAT}: a file of `psp world export`")
    if head.version != VERSION or isinstance(head.version, bool | float):
        raise invalid("version", f"must be {VERSION}; export the world again with a sandbox of this version")
    try:
        return Uploaded(msgspec.json.decode(content, type=_Raw), content)
    except msgspec.ValidationError as error:
        message, place = _PLACE.match(str(error)).groups()  # type: ignore[union-attr]  # it matches every text
        raise invalid_fields([(for_display(place or "body"), for_display(message[:1].lower() + message[1:]))]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("MALFORMED_JSON", f"The body is not valid JSON in UTF-8: {for_display(str(error))}.") from None


def check_bundle(raw: _Raw, tables: Mapping[str, TableShape], checker: RowChecker) -> CheckedBundle:
    """Check a bundle against the tables of the database. Raises VALIDATION_ERROR that lists the first errors."""
    errors: list[FieldProblem] = []
    times = {
        "merchant.frozen_at": raw.merchant.frozen_at,
        "clock.frozen_at": raw.clock.frozen_at,
        "created_at": raw.created_at,
    }
    read: dict[str, datetime | None] = {}
    for field, text in times.items():
        try:
            read[field] = None if text is None else read_time(text)
        except InvalidValueError as error:
            errors.append((field, str(error)))
    errors += _amount_errors("merchant.opening_balance", raw.merchant.opening_balance)
    errors += _amount_errors("merchant.settings.review_threshold", raw.merchant.settings.review_threshold)
    offset = Decimal(raw.clock.offset_seconds)
    if abs(offset) > _MAX_OFFSET:
        errors.append(("clock.offset_seconds", "must be at most 7000 years"))
        offset = Decimal(0)
    errors += _journal_errors(raw.journal.calls)
    errors += [
        (f"tables.{for_display(name)}", f"is not a table of a world{suggestion(name, tables)}")
        for name in raw.tables
        if name not in tables
    ]
    errors += [(f"tables.{name}", "is required") for name in tables if name not in raw.tables]
    total = sum(len(table.rows) for table in raw.tables.values())
    if total > MAX_SNAPSHOT_ROWS:
        errors.append(("tables", f"must have at most {MAX_SNAPSHOT_ROWS} rows in total; these are {total}"))
    found: dict[str, TableRows] = {}
    for name, table in tables.items():
        if len(errors) >= MAX_ERRORS or total > MAX_SNAPSHOT_ROWS:
            break
        if name in raw.tables:
            found[name] = _read_table(table, raw.tables[name], checker, errors)
    if not errors:
        errors += _world_errors(found, raw.id_counter)
    if errors:
        raise invalid_fields(errors[:MAX_ERRORS])
    return CheckedBundle(
        raw,
        found,
        read["clock.frozen_at"],
        timedelta(microseconds=int(offset * 1_000_000)),
        read["merchant.frozen_at"],
    )


def metadata_pairs(payouts: TableRows) -> list[tuple[str, str]]:
    """Return the (pair, payout id) rows of the index over the payouts' metadata."""
    return [
        (metadata_pair_id(name, value), str(payout_id))
        for payout_id, metadata in zip(payouts.values("id"), payouts.values("metadata"), strict=True)
        for name, value in msgspec.json.decode(metadata).items()
    ]


def _amount_errors(field: str, amount: Decimal | None) -> list[FieldProblem]:
    if amount is None or (amount.is_finite() and 0 < amount <= _MAX_AMOUNT and amount == amount.quantize(Decimal("0.01"))):
        return []
    return [(field, f"must be an amount from 0.01 to {_MAX_AMOUNT}, or null")]


def _journal_errors(calls: Sequence[JournalEntry]) -> Iterable[FieldProblem]:
    if len(calls) > ENTRIES_KEPT:
        return [("journal.calls", f"must have at most {ENTRIES_KEPT} calls")]
    errors = []
    for number, call in enumerate(calls):
        texts = (call.method, call.request_id, call.traceparent, call.idempotency_key or "", call.api_key_id or "")
        sizes = (len(call.path), len(call.query), len(call.request_body), len(call.response_body))
        if not is_uuid(call.id) or not _is_time(call.at) or not 0 <= call.status <= 599 or not 0 <= call.duration_ms < 1e9:
            errors.append(
                (f"journal.calls[{number}]", "must have a UUID as `id`, and a valid `at`, `status` and `duration_ms`")
            )
        elif not all(map(_PRINTABLE.match, texts)) or max(sizes) > BODY_LIMIT + 100 or len(call.request_headers) > 200:
            errors.append((f"journal.calls[{number}]", "has a text that is longer than the journal keeps, or not ASCII"))
    return errors[:MAX_ERRORS]


def _is_time(text: str) -> bool:
    try:
        parse(text)
    except (ValueError, OverflowError):
        return False
    return True


def _read_table(table: TableShape, given: _Rows, checker: RowChecker, errors: list[FieldProblem]) -> TableRows:
    """Return a table's values. Adds at most MAX_ERRORS errors."""
    place = f"tables.{table.name}"
    known = {column.name: column for column in table.columns}
    wrong = [
        (f"{place}.columns[{number}]", f"{for_display(name)!r} is not a column of it{suggestion(name, known)}")
        for number, name in enumerate(given.columns)
        if name not in known
    ]
    wrong += [(f"{place}.columns", "must not repeat a column")] if len(set(given.columns)) < len(given.columns) else []
    # A table without rows needs no columns.
    required = [column.name for column in table.columns if given.rows and not column.is_optional]
    missing = [name for name in required if name not in given.columns]
    wrong += [(f"{place}.columns", f"must include {name}") for name in missing]
    if len(given.rows) > _MAX_ROWS.get(table.name, MAX_SNAPSHOT_ROWS):
        wrong.append((f"{place}.rows", f"must have at most {_MAX_ROWS[table.name]} rows"))
    found = TableRows(tuple(given.columns), [])
    if wrong:
        errors += wrong[: MAX_ERRORS - len(errors)]
        return found
    columns = [known[name] for name in given.columns]
    absent = dict.fromkeys(known.keys() - set(given.columns))
    for number, cells in enumerate(given.rows):
        at = f"{place}.rows[{number}]"
        if len(cells) != len(columns):
            errors.append((at, f"must have {len(columns)} values, one for each column; it has {len(cells)}"))
        else:
            values = _read_row(table.name, columns, cells, at, errors)
            if values is not None:
                row = absent | dict(zip(given.columns, values, strict=True))
                errors += [(f"{at}.{column}", message) for column, message in checker.check(table.name, row)]
                found.rows.append(values)
        if len(errors) >= MAX_ERRORS:
            break
    return found


def _read_row(
    table: str, columns: Sequence[Column], cells: Sequence[msgspec.Raw], at: str, errors: list[FieldProblem]
) -> tuple[Any, ...] | None:
    values = []
    for column, cell in zip(columns, cells, strict=True):
        try:
            is_body = (table, column.name) == ("idempotency_keys", "body")
            values.append(_stored_body(cell) if is_body else read_value(column, cell))
        except InvalidValueError as error:
            errors.append((f"{at}.{column.name}", str(error)))
    return tuple(values) if len(values) == len(columns) else None


def _stored_body(cell: msgspec.Raw) -> bytes:
    try:
        text = msgspec.json.decode(cell, type=str | None)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise InvalidValueError("must be a string or null") from None
    if text is not None and "\0" in text:
        raise InvalidValueError(NUL)
    return SEALED if text is None else text.encode()


def _world_errors(tables: Mapping[str, TableRows], id_counter: int) -> Iterable[FieldProblem]:
    """Yield the errors that concern several rows and that neither the database nor the audit would find."""
    accounts = set(tables["accounts"].values("account"))
    users = {str(user_id) for user_id in tables["users"].values("id")}
    missing = [account for account in MERCHANT_ACCOUNTS if account not in accounts]
    if missing:
        yield "tables.accounts.rows", f"must include {', '.join(missing)}"
    stray = next((name for name in accounts if ":" in name and name.partition(":")[2] not in users), None)
    if stray is not None:
        yield "tables.accounts.rows", f"must not include {stray}, whose user does not exist"
    payers = (str(user_id) for user_id in tables["payouts"].values("user_id") if user_id is not None)
    unknown = next((user_id for user_id in payers if user_id not in users), None)
    if unknown is not None:
        yield "tables.payouts.rows", f"must not refer to user {unknown}, who does not exist"
    endpoints = set(tables["webhook_endpoints"].values("id"))
    deliveries = tables["webhook_deliveries"]
    for endpoint_id, status in zip(deliveries.values("endpoint_id"), deliveries.values("status"), strict=True):
        if status in ("PENDING", "PAUSED") and endpoint_id not in endpoints:
            yield "tables.webhook_deliveries.rows", f"must not be {status} for endpoint {endpoint_id}, which does not exist"
            break
    if id_counter <= 0xFFFFFFFF:
        highest = max((_counter(value.int) for name in _COUNTED for value in tables[name].values("id")), default=-1)
        if highest >= id_counter:
            yield "id_counter", f"must be above {highest}, which an id in the tables uses; otherwise ids would repeat"


def _counter(id_: int) -> int:
    """Return the counter inside an id, see `uuid7`."""
    return (id_ >> 64 & 0xFFF) << 20 | id_ >> 42 & 0xFFFFF
