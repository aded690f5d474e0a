"""The tables of the aggregator."""

from piccolo.columns import UUID, Bytea, Integer, Text, Timestamptz
from piccolo.table import Table

from sandbox.infrastructure.db.engine import ENGINE


class VendorCursors(Table, db=ENGINE):
    """The position in the feed of a merchant's vendor. `headers` are sealed. The row is the lock of the aggregated data."""

    merchant_id = UUID(primary_key=True, default=None)
    url = Text(null=True, default=None)
    headers = Bytea(null=True, default=None)
    since = Timestamptz(null=True, default=None)
    page = Integer(default=None)
    newest_read = Timestamptz(null=True, db_column_name="seen", default=None)
    sync_started_at = Timestamptz(null=True, db_column_name="walk_began", default=None)
    last_id = UUID(null=True, default=None)
    failures = Integer(default=None)
    next_poll_at = Timestamptz(default=None)
    fetch_id = UUID(null=True, default=None)
    updated_at = Timestamptz(default=None)


class VendorFetches(Table, db=ENGINE):
    """A call to a vendor."""

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    url = Text(default=None)
    page = Integer(default=None)
    at = Timestamptz(default=None)
    ended_by = Timestamptz(default=None)
    outcome = Text(default=None)
    status = Integer(null=True, default=None)
    rows = Integer(null=True, default=None)
    new_rows = Integer(null=True, default=None)
    dead_letters = Integer(null=True, default=None)
    duration_ms = Integer(null=True, default=None)
    error = Text(null=True, default=None)


class VendorDeadLetters(Table, db=ENGINE):
    """A row that could not be parsed. The column `raw` with its text is `row` here, because Table has a method `raw`."""

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    digest = Bytea(default=None)
    row = Text(db_column_name="raw", default=None)
    reason = Text(default=None)
    created_at = Timestamptz(default=None)
