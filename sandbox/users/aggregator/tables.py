"""The table of vendors' feeds."""

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
