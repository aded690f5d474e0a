"""The table of merchants' own scenarios."""

from piccolo.columns import JSONB, UUID, Integer, Text
from piccolo.table import Table

from sandbox.infrastructure.db.engine import ENGINE


class ScenarioRules(Table, db=ENGINE):
    """A merchant's own scenario."""

    merchant_id = UUID(primary_key=True, default=None)
    id = UUID(primary_key=True, default=None)
    name = Text(default=None)
    position = Integer(default=None)
    match = JSONB(default=None)
    steps = JSONB(default=None)
