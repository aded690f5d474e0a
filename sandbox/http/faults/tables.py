"""The table of faults."""

from piccolo.columns import JSONB, UUID, BigInt, DoublePrecision, Integer, Text, Timestamptz
from piccolo.table import Table

from sandbox.infrastructure.db.engine import ENGINE


class Faults(Table, db=ENGINE):
    """A fault. The column `count`, the maximum number of hits, is `max_hits` here, because Table has a method `count`."""

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    target = Text(default=None)
    kind = Text(default=None)
    match = JSONB(default=None)
    parameters = JSONB(default=None)
    probability = DoublePrecision(default=None)
    max_hits = Integer(null=True, db_column_name="count", default=None)
    skip = Integer(default=0)
    seed = BigInt(null=True, default=None)
    matches = BigInt(default=None)
    hits = BigInt(default=None)
    expires_at = Timestamptz(null=True, default=None)
    created_at = Timestamptz(default=None)
