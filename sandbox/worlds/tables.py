"""The tables of snapshots."""

from piccolo.columns import UUID, BigInt, Boolean, Column, Integer, Text, Timestamptz
from piccolo.table import Table, create_table_class

from sandbox.db.engine import ENGINE
from sandbox.merchants.tables import WORLD


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


class Rows(Column):
    """An array of whole rows of a table, in PostgreSQL's composite type of the same name."""

    value_type = list

    def __init__(self, table: str) -> None:
        self.table = table
        super().__init__(null=True, default=None)

    @property
    def column_type(self) -> str:
        """Return the column's type in PostgreSQL."""
        return f"{self.table}[]"


SnapshotRows = create_table_class(
    "SnapshotRows",
    class_kwargs={"db": ENGINE},
    class_members={
        "merchant_id": UUID(primary_key=True, default=None),
        "snapshot_id": UUID(primary_key=True, default=None),
        "table_name": Text(primary_key=True, default=None),
        "part": Integer(primary_key=True, default=None),
        **{table: Rows(table) for table in WORLD},
    },
)
"""A part of one table's rows in a snapshot. Of the columns named after tables, only that table's is set."""
