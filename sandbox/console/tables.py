"""The table of console sessions that were ended before they expired."""

from piccolo.columns import UUID, Text, Timestamptz
from piccolo.table import Table

from sandbox.db.engine import ENGINE


class ConsoleSignOuts(Table, db=ENGINE):
    """An ended session. An empty session means all sessions of the subject that began until `at`.

    `merchant_id` is that of the API key with which the session began; UUID zero for the operator's sessions.
    """

    merchant_id = UUID(primary_key=True, default=None)
    subject = Text(primary_key=True, default=None)
    session = Text(primary_key=True, default=None)
    at = Timestamptz(default=None)
