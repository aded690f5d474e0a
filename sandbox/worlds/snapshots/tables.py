"""The table of snapshots."""

from piccolo.columns import UUID, BigInt, Boolean, Integer, Text, Timestamptz
from piccolo.table import Table

from sandbox.infrastructure.db.engine import ENGINE


class Snapshots(Table, db=ENGINE):
    """A snapshot of a world. A restore can keep the append-only rows with ids up to `position` if `is_intact` is true."""

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    name = Text(default=None)
    rows = Integer(default=None)
    size = BigInt(default=None)
    clock_at = Timestamptz(default=None)
    created_at = Timestamptz(default=None)
    position = UUID(null=True, default=None)
    append_only_rows = Integer(null=True, db_column_name="standing_rows", default=None)
    is_intact = Boolean(db_column_name="stands", default=False)
